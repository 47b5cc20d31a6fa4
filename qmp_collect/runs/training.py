"""What surrounds the loop of a training script and belongs to no method: settings, folder, logs, checkpoints."""

from __future__ import annotations

import random
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qmp_collect.extras import command_for
from qmp_collect.fleet import RayFleet, Shard
from qmp_collect.fleet_collector import FleetCollector
from qmp_collect.replay import TaskReplayBuffer
from qmp_collect.runs.acceleration import accelerate
from qmp_collect.runs.console import duration, say
from qmp_collect.runs.folder import RunFolder, checked_name
from qmp_collect.runs.forms import check_form
from qmp_collect.runs.member import Member
from qmp_collect.runs.precision import flush_denormals, set_matmul_precision
from qmp_collect.runs.progress import Place, Progress
from qmp_collect.runs.saved import Collector, SavedParts, Stateful
from qmp_collect.runs.saved_seeds import SavedSeeds
from qmp_collect.runs.schedule import linear
from qmp_collect.runs.scripts import own_script
from qmp_collect.runs.seeding import stream_seed
from qmp_collect.runs.seeds import SeedReplay, policy_of_seed, stack_agents, state_of_seed
from qmp_collect.runs.settings import RunArgs, check_tracker, num_seeds, tracker_of
from qmp_collect.runs.stop import SAVED, StopSignal, Watched
from qmp_collect.runs.summary import summary, summary_of_seeds
from qmp_collect.runs.video import check_filmable, filmable
from qmp_collect.stats import CollectStats
from qmp_collect.transitions import TransitionSink


class TrainingRun:
    """A run of a training script: seeds, device, folder, logs, evaluations, checkpoints, progress bar.

    The loop itself stays in the script:

        run = TrainingRun(args, task_names)
        ...
        with run.start(collector, agent=agent, buffer=buffer):
            while run.unfinished():
                if run.evaluation_due():
                    run.evaluated(evaluate(eval_envs, agent.mean_policy, stop=run.stop, seed=run.eval_seed))
                    continue
                if not run.updates_due:
                    if not run.collected(collector.collect(n_step=1_000, stop=run.stop, resume=run.interrupted)):
                        continue
                    run.updates_due = 100
                losses = {}
                while run.update_due():
                    losses = agent.update(buffer.sample(256))
                run.end_round(losses)
            run.save_videos(agent.mean_policy)

    SIGTERM, Ctrl-C, SIGHUP, SIGUSR1 and SIGUSR2 end the loop before the next env step or gradient step and save a
    checkpoint; the program ends with exit code 75 then. A resumed run begins with the steps that were still due, makes
    an unfinished evaluation again, and ends bit-identical to one that nobody stopped (on a CPU).

    The folder is locked while a process works on it (see `qmp_collect.runs.folder`); ``done.json`` in it is written
    last. A checkpoint whose agent is not finite is written as ``diverged.npz`` beside the last one that was. Beside
    each checkpoint lies its policy, for `qmp_collect.runs.policy.load_policy`.

    With ``args.num_seeds`` above 1 it is as many runs side by side, each with a folder of its own in that of all, and
    what each leaves there is what a run of its own leaves; see docs/guides/compare_seeds.md.
    Steps, intervals and rounds are those of each of them.

    Args:
        args: the settings; what was 0 for "a share of the run" is filled in.
        task_names: ``T`` names, used as parts of tags and as names of videos.

    Attributes:
        device: what to train on.
        seeds: of the runs side by side; one, mostly.
        seed: the same for a collector: one number, or several.
        updates_due: gradient steps left in this round.
        interrupted: whether a stop has left a part of this round's env steps to be made.

    Raises:
        SystemExit: For settings that cannot be meant.
    """

    def __init__(self, args: RunArgs, task_names: Sequence[str]) -> None:
        self.args, self.task_names = args, list(task_names)
        self.num_seeds = num_seeds(args)
        self.seeds = [args.seed + place for place in range(self.num_seeds)]
        self.seed: int | list[int] = args.seed if self.num_seeds == 1 else self.seeds
        of_seeds = args.seed if self.num_seeds == 1 else f"{args.seed}-{self.seeds[-1]}"
        parts = (args.env_id, args.exp_name, getattr(args, "switch", None), of_seeds, int(time.time()))
        self._name = "__".join(str(part) for part in parts if part is not None)
        try:
            for name in (self._name, *self.task_names):
                checked_name(name)
        except ValueError as error:
            raise SystemExit(f"a run of {args.env_id!r} as --exp-name {args.exp_name!r}: {error}") from error
        if len(set(self.task_names)) < len(self.task_names):
            raise SystemExit(f"{args.env_id}: two tasks have the same name: {self.task_names}")
        check_tracker(args)
        if self.num_seeds > 1:
            _check_side_by_side(args)
        if args.capture_video:
            try:
                check_filmable(args.env_id)
            except ValueError as error:
                raise SystemExit(f"--capture-video: {error}") from error
        if args.resume is None:
            args.eval_every = args.eval_every or max(args.total_timesteps // 100, 1)
            args.checkpoint_every = args.checkpoint_every or max(args.total_timesteps // 20, 1)

        # TRY NOT TO MODIFY: seeding
        random.seed(args.seed)
        np.random.seed(args.seed)
        torch.manual_seed(args.seed)
        torch.backends.cudnn.deterministic = args.torch_deterministic

        self.device = torch.device("cuda" if torch.cuda.is_available() and args.cuda else "cpu")
        if args.cudagraphs and self.device.type != "cuda":
            raise SystemExit("--cudagraphs needs a CUDA device")
        if args.torch_threads:
            torch.set_num_threads(args.torch_threads)
        set_matmul_precision(args.matmul_precision, self.device)
        flush_denormals()

        args.eval_envs_per_task = args.eval_envs_per_task or args.eval_episodes
        if args.eval_episodes < 1 or args.eval_envs_per_task < 1 or args.eval_episodes % args.eval_envs_per_task:
            raise SystemExit(f"--eval-envs-per-task: {args.eval_envs_per_task} must divide {args.eval_episodes}")

        self._script = Path(sys.argv[0]).stem
        self.updates_due, self.interrupted = 0, False
        self._evaluated_at, self._next_eval = -1, 0
        self._next_checkpoint = args.checkpoint_every

    @cached_property
    def _folder(self) -> RunFolder:
        try:
            if self.args.resume is not None:
                return RunFolder.reopen(self.args.resume)
            if self.args.run_dir is not None:
                return RunFolder.claim(self.args.run_dir)
            return RunFolder.create(self.args.run_dir_root, self._name)
        except (OSError, ValueError) as error:
            raise SystemExit(f"the run's folder: {error}") from error

    @cached_property
    def _folders(self) -> list[RunFolder]:
        """Of each seed; of one, the run's."""
        if self.num_seeds == 1:
            return [self._folder]
        try:
            return self._folder.claim_seeds(self.seeds) if self.args.resume is None else self._folder.reopen_seeds()
        except (OSError, ValueError) as error:
            raise SystemExit(f"the run's folder: {error}") from error

    @property
    def dir(self) -> Path:
        """The run's folder, made and locked when it is first asked for."""
        return self._folder.path

    def make_agent(self, make: Callable[[int], Any]) -> Any:
        """The agent of all seeds, see `qmp_collect.runs.seeds.stack_agents`.

        Args:
            make: an untrained agent of so many seeds.
        """
        if self.num_seeds == 1:
            return make(1)
        return stack_agents(make, self.seeds, self.device, own_noise=not self.args.cudagraphs)

    def make_buffer(self, make: Callable[[int], TaskReplayBuffer]) -> TaskReplayBuffer | SeedReplay:
        """The replay buffer of all seeds.

        Args:
            make: that of a run of its own with this seed.
        """
        return make(self.seeds[0]) if self.num_seeds == 1 else SeedReplay([make(seed) for seed in self.seeds])

    def rows(self, num_envs: int) -> dict[str, Any]:
        """What tells `QMPCollector` and ``evaluate`` which of so many sub-environments is whose.

        They lie seed by seed, and row i has task i mod T.
        """
        num_tasks, rows = len(self.task_names), np.arange(num_envs)
        own_ids = rows % num_tasks
        task_ids = rows // (num_envs // self.num_seeds) * num_tasks + own_ids
        return {"task_ids": task_ids, "own_ids": own_ids, "num_tasks": self.num_seeds * num_tasks}

    def fleet(
        self,
        make_collector: Callable[[Shard], Any],
        weights: Callable[[], Any],
        buffer: TransitionSink,
    ) -> FleetCollector:
        """What collects on ``args.hosts`` hosts of a Ray cluster, which ends with the run.

        Args:
            make_collector, weights: See `qmp_collect.fleet.RayFleet` and `qmp_collect.fleet_collector.FleetCollector`.
            buffer: where transitions go.

        Raises:
            SystemExit: ``args`` have several seeds, too.
        """
        if self.num_seeds > 1:
            raise SystemExit(f"--hosts {self.args.hosts}: not together with --num-seeds")  # type: ignore[attr-defined]
        fleet = RayFleet(make_collector, self.args.hosts, seed=self.args.seed)  # type: ignore[attr-defined]
        return FleetCollector(fleet, weights, buffer, num_tasks=len(self.task_names))

    def accelerate(self, agent: object, *methods: str) -> None:
        """Replace these methods of ``agent`` by compiled or recorded ones, as --compile and --cudagraphs ask."""
        accelerate(agent, *methods, compile=self.args.compile, cudagraphs=self.args.cudagraphs)

    def linear(self, first: float, last: float | None) -> Callable[[int], float]:
        """A schedule over the run's env steps, from ``first`` to ``last`` at its end; constant without ``last``."""
        return linear(first, last, self.args.total_timesteps)

    def check_learning_starts(self, needed: int, capacity: int, per_round: int, round_steps: int) -> None:
        """Refuse settings with which no gradient step would ever be made, or the run would be longer than asked for.

        Args:
            needed: transitions that a buffer must hold before learning starts.
            capacity: what it can hold.
            per_round: what it is given in a round.
            round_steps: env steps of a round, summed over tasks.

        Raises:
            SystemExit: Nothing would be learned, or one round is more than the whole run.
        """
        if round_steps > self.args.total_timesteps:
            raise SystemExit(
                f"--total-timesteps {self.args.total_timesteps}: less than a round, which is {round_steps} env steps, "
                f"--env-steps-per-round {round_steps // len(self.task_names)} of each of {len(self.task_names)} tasks"
            )
        rounds = -(-self.args.total_timesteps // round_steps)
        if needed > capacity:
            raise SystemExit(
                f"--min-buffer-size {needed}: the buffer holds only {capacity}, learning would never start"
            )
        if needed > rounds * per_round:
            raise SystemExit(
                f"--min-buffer-size {needed}: the {self.args.total_timesteps} steps of --total-timesteps bring the "
                f"buffer only {rounds * per_round}, learning would never start"
            )

    def storable(self, round_steps: int, num_envs: int) -> int:
        """Transitions of a task that the run can bring, at most: replay beyond it would be memory for nothing.

        Args:
            round_steps: env steps of a round, summed over tasks.
            num_envs: training environments of all tasks together, as many of each.
        """
        rounds, vector_steps = -(-self.args.total_timesteps // round_steps), -(-round_steps // num_envs)
        return rounds * vector_steps * num_envs // len(self.task_names)

    @contextmanager
    def start(self, collector: Collector, **parts: Stateful) -> Iterator[TrainingRun]:
        """Open the folder and the logs, and load the checkpoint of a resumed run.

        Args:
            collector: counts the steps of the run.
            parts: what else belongs into the checkpoint, by name; ``agent.actor`` is saved as the policy besides. Of a
                `TaskReplayBuffer` is logged what share of the round's last batch own policies had collected.

        Raises:
            SystemExit: The folder is another process's, or not what it was when the checkpoint was saved. At the end,
                with code 75, if the run was stopped.
            FloatingPointError: The agent to be saved is not finite.
        """
        with ExitStack() as locks:
            if isinstance(collector, FleetCollector):
                locks.callback(collector.close)
            for folder in self._every_folder():
                locks.enter_context(folder)
            self._prepare(collector, parts)
            with (
                StopSignal() as asked,  # first: what is loaded, and trackers that begin and end, may take a while
                self._logging(),
                closing(Progress(self.args.total_timesteps, self.args.eval_every, self._place)) as self._bar,
            ):
                say(f"{self.dir} on {self.device}; Ctrl-C saves a checkpoint and stops")
                self.stop = Watched(asked, self._bar.move)
                if self.args.resume is None:
                    collector.reset(seed=self._stream_seeds(0))
                yield self
                self._bar.draw()
                self._save()
            if not self._complete:
                say(f"stopped at step {self.global_step}; continue it with --resume {shlex.quote(str(self.dir))}")
                raise SystemExit(SAVED)
            for folder in reversed(list(self._every_folder())):
                folder.finish(global_step=self.global_step, total_timesteps=self.args.total_timesteps)
            to_watch = self.args.import_, own_script(type(self.args)), filmable(self.args.env_id)
            if self.num_seeds > 1:
                say(summary_of_seeds({member.seed: member.dir for member in self._members}, *to_watch))
            else:
                say(summary(self.dir, self.task_names, *to_watch))

    def _every_folder(self) -> Iterator[RunFolder]:
        """The run's, and those of its seeds."""
        yield self._folder
        if self.num_seeds > 1:
            yield from self._folders

    def _prepare(self, collector: Collector, parts: Mapping[str, Any]) -> None:
        self._collector, self._agent = collector, parts["agent"]
        self._members = [
            Member(folder, self.args, seed, self.task_names, self._script)
            for folder, seed in zip(self._folders, self.seeds, strict=True)
        ]
        self._saved: SavedParts | SavedSeeds
        if self.num_seeds == 1:
            self._saved = SavedParts(self.dir, {"collector": collector, **parts})
            self._replays = [[part for part in parts.values() if isinstance(part, TaskReplayBuffer)]]
            return
        buffers = {name: part for name, part in parts.items() if name != "agent"}
        folders = {member.seed: member.dir for member in self._members}
        self._saved = SavedSeeds(self.dir, folders, collector, self._agent, buffers)
        self._replays = [list(own) for own in zip(*(part.buffers for part in buffers.values()), strict=True)]

    @contextmanager
    def _logging(self) -> Iterator[None]:
        args, rows = self.args, list[int | None]([None] * len(self._members))
        if broken := self._folder.broken:
            say(
                f"{self.dir}: process {broken.get('pid')} on {broken.get('host')} left its lock behind, which is broken"
            )
        if args.resume is not None:
            rows = list(self._load())
            if not tracker_of(args) and (self.dir / "tracker.json").exists():
                say(f"{self.dir} was tracked before; this part of it is not, without --track or --tracker")
        self._start_step, self._start_time = self.global_step, time.perf_counter()
        with ExitStack() as logs:
            try:
                loggers = [logs.enter_context(member.open(r)) for member, r in zip(self._members, rows, strict=True)]
            except ValueError as error:
                raise SystemExit(f"--resume {self.dir}: {error}") from error
            if not loggers[0].tensorboard:
                say(f"curves are in metrics.jsonl alone, TensorBoard is not installed: {command_for('tensorboard')}")
            for folder in self._every_folder():
                folder.reopened_for_more()
            yield

    def _place(self) -> Place:
        return Place(self.global_step, self.updates_due, self.evaluation_due())

    @property
    def global_step(self) -> int:
        """Transitions stored so far, summed over tasks; of several seeds, by each."""
        return self._collector.num_steps // self.num_seeds

    @property
    def eval_seed(self) -> int | list[int]:
        """Seed of the evaluation that is due: of episodes that neither training nor another evaluation sees.

        Of several seeds, one each.
        """
        return self._stream_seeds(1, self.global_step)

    def _stream_seeds(self, *use: int) -> int | list[int]:
        seeds = [stream_seed(seed, *use) for seed in self.seeds]
        return seeds if self.num_seeds > 1 else seeds[0]

    @property
    def _amid_round(self) -> bool:
        """Whether a stop left steps of the round to be made."""
        return self.updates_due > 0 or self.interrupted

    @property
    def _complete(self) -> bool:
        """Whether all steps, gradient steps and evaluations of the run have been made."""
        done = self.global_step >= self.args.total_timesteps and not self._amid_round
        return done and not self.evaluation_due()

    def unfinished(self) -> bool:
        """Whether there is something left to do, and nobody asked to stop.

        Saves a checkpoint if it is time, and with --capture-video films what was learned so far.
        """
        if not self._amid_round and not self.evaluation_due() and self.global_step >= self._next_checkpoint:
            self._next_checkpoint = _next(self.global_step, self.args.checkpoint_every)
            self._save()
            if self.args.capture_video and not self._complete:
                self._film(self._agent.mean_policy)
        self._bar.begin()
        return not self.stop and not self._complete

    def evaluation_due(self) -> bool:
        """Whether to evaluate before anything else: at the start, every --eval-every steps, and at the end."""
        step = self.global_step
        reached = step >= min(self._next_eval, self.args.total_timesteps) and step != self._evaluated_at
        return reached and not self._amid_round

    def evaluated(self, stats: CollectStats) -> None:
        """Log an evaluation. One during which somebody asked to stop is made again by the resumed run."""
        if self.stop:
            return
        self._bar.evaluated()
        step = self.global_step
        since = self._collector.stats(clear=step > 0).by_group()  # the last evaluation
        logged = [
            member.evaluated(step, own, acted.mixture if step else None)
            for member, own, acted in zip(self._members, stats.by_group(), since, strict=True)
        ]
        self._evaluated_at, self._next_eval = step, _next(step, self.args.eval_every)
        said = [f"return {_mean(logged, 'eval/return'):.1f}"]
        if "eval/success" in logged[0]:
            self._bar.shown["success"] = f"{_mean(logged, 'eval/success'):.2f}"
            said.insert(0, f"success {self._bar.shown['success']}")
        if (left := self._bar.left()) is not None:
            said.append(f"{duration(left)} left")
        say(f"step {step} of {self.args.total_timesteps}: {', '.join(said)}")

    def collected(self, stats: CollectStats) -> bool:
        """Take note of what was collected. Whether the round has all its steps: if not, somebody asked to stop."""
        self.interrupted = stats.unfinished > 0 and stats.n_collected_steps > 0
        if stats.unfinished:
            return False
        for member, own in zip(self._members, stats.by_group(), strict=True):
            member.collected(own)
        self._bar.collected()
        return True

    def update_due(self) -> bool:
        """Whether to make one more gradient step in this round; counts down."""
        if not self.updates_due:
            return False
        self._bar.updating()
        if self.stop:
            return False
        self.updates_due -= 1
        return True

    def end_round(self, losses: Mapping[str, torch.Tensor]) -> None:
        """Log the round; nothing if gradient steps are left because of a stop.

        Args:
            losses: of the round's last gradient step, by name: a number, or ``(T,)`` for numbers of each task, which
                are logged as ``tasks/<name>/*`` and averaged; of S seeds ``(S, 1)`` and ``(S * T,)``. Reading them is
                the only time that a round waits for the device. Empty in a round without gradient steps.
        """
        if self.updates_due:
            return
        values = self._values(losses)
        times, now = {"time/update": self._bar.end_round() / self.num_seeds}, time.perf_counter()
        if now > self._start_time:
            times["time/sps"] = (self.global_step - self._start_step) / (now - self._start_time)
        for member, own, of_member in zip(self._members, self._of_members(losses), values, strict=True):
            member.end_round(self.global_step, own, iter(of_member), times)
        if "charts/success" in self._members[0].scalars:
            self._bar.shown["collecting"] = f"{_mean([m.scalars for m in self._members], 'charts/success'):.2f}"

    def save_videos(self, mean_policy: Callable[..., Any]) -> None:
        """With --capture-video, at the end of the run: an evaluation episode of each task as a picture file.

        The checkpoint is saved before: if nothing can be drawn here, the run may be resumed elsewhere. TensorBoard and
        Weights & Biases get the films too, as they do those of earlier checkpoints.

        Args:
            mean_policy: ``mean_policy(obs (N, *O), task_ids (N,)) -> actions (N, *A)``, tensors.
        """
        if self.args.capture_video and self._complete:
            self._save()
            self._film(mean_policy)

    # ------------------------------------------------------------------ internals

    def _film(self, mean_policy: Callable[..., Any]) -> None:
        """An episode of each task; those before the end give way to a stop."""
        for place, member in enumerate(self._members):
            own = mean_policy if self.num_seeds == 1 else policy_of_seed(mean_policy, place, self.num_seeds)
            member.film(self.global_step, own, self.device, lambda: bool(self.stop) and not self._complete)

    def _of_members(self, losses: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        """The losses of each seed: a number of those that are ``(S, 1)``, of ``(S * T,)`` the ``(T,)`` of its tasks."""

        def own(loss: torch.Tensor, place: int) -> torch.Tensor:
            if loss.ndim == 2:
                return loss[place, 0]
            return loss if self.num_seeds == 1 else loss.view(self.num_seeds, -1)[place]

        return [{name: own(loss, place) for name, loss in losses.items()} for place in range(self.num_seeds)]

    def _values(self, losses: Mapping[str, torch.Tensor]) -> list[list[float]]:
        """Of each, the numbers that `Member.end_round` wants, for which the device is waited for once."""
        if not losses:
            return [[] for _ in self._members]
        wanted = [
            torch.cat([value.detach().reshape(-1) for value in (*own.values(), *(r.own_share() for r in replay))])
            for own, replay in zip(self._of_members(losses), self._replays, strict=True)
        ]
        values: list[list[float]] = torch.stack(wanted).tolist()
        return values

    def _progress(self, member: Member) -> dict[str, Any]:
        return {
            "script": self._script,
            "settings": member.settings,
            "updates_due": self.updates_due,
            "interrupted": self.interrupted,
            "scalars": member.scalars,
            "evaluated_at": self._evaluated_at,
            "next_eval": self._next_eval,
            "next_checkpoint": self._next_checkpoint,
        }

    def _save(self) -> None:
        for member in self._members:
            member.logger.sync()  # no checkpoint is newer than the rows that it counts
        try:
            self._saved.save([self._progress(member) | {"rows": member.logger.rows} for member in self._members])
        except FloatingPointError as error:
            raise FloatingPointError(f"step {self.global_step}: {error}") from error
        actor = self._agent.actor.state_dict()
        for place, member in enumerate(self._members):
            own = actor if self.num_seeds == 1 else state_of_seed({"actor": actor}, place, self.num_seeds, ())["actor"]
            member.save_policy(self.global_step, own)

    def _load(self) -> list[int]:
        """Put everything back in place, when all of it fits; the number of rows that had been logged."""
        try:
            saved = self._saved.read()
            for member, own in zip(self._members, saved, strict=True):
                self._check_progress(member, own["run"])
            if self.args.total_timesteps < (step := saved[0]["collector"]["num_steps"] // self.num_seeds):
                raise ValueError(f"--total-timesteps: it is at step {step} already")
            self._saved.restore(saved)
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
            raise SystemExit(f"--resume {self.dir}: {error}") from error
        run = saved[0]["run"]
        self.updates_due, self.interrupted = run["updates_due"], run["interrupted"]
        self._evaluated_at, self._next_eval = run["evaluated_at"], run["next_eval"]
        self._next_checkpoint = run["next_checkpoint"]
        for member, own in zip(self._members, saved, strict=True):
            member.scalars = own["run"]["scalars"]
        return [int(own["run"]["rows"]) for own in saved]

    def _check_progress(self, member: Member, run: Mapping[str, Any]) -> None:
        if run["script"] != self._script:
            raise ValueError(f"it is a run of {run['script']}, not of {self._script}")
        if "settings" not in run:
            raise ValueError("its checkpoint is of an older version, which kept no settings; start it anew")
        _compare_settings(run["settings"], member.settings)
        of_its_own = {"rows": 0, "scalars": dict.fromkeys(run["scalars"], 0.0), "settings": run["settings"]}
        check_form(run, self._progress(member) | of_its_own, "run")


def _check_side_by_side(args: RunArgs) -> None:
    """Refuse what several seeds in one process cannot have."""
    refused = {
        "--compile": args.compile,
        "--track and --tracker": tracker_of(args) is not None,
    }
    if flags := [flag for flag, given in refused.items() if given]:
        raise SystemExit(f"--num-seeds {num_seeds(args)}: not together with {', '.join(flags)}")
    if args.seed + num_seeds(args) > 2**32:
        raise SystemExit(f"--num-seeds {num_seeds(args)}: seeds from --seed {args.seed} on are beyond {2**32 - 1}")


def _compare_settings(saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differ = [k for k in sorted(now.keys() | saved.keys()) if k not in saved or k not in now or saved[k] != now[k]]
    if changed := [name for name in differ if name != "total_timesteps"]:
        said = ", ".join(f"{name} {saved.get(name)} and now {now.get(name)}" for name in changed)
        raise ValueError(f"config.json was changed since the checkpoint was saved, with {said}")


def _next(step: int, every: int) -> int:
    """The first multiple of ``every`` beyond ``step``."""
    return (step // every + 1) * every


def _mean(logged: Sequence[Mapping[str, float]], tag: str) -> float:
    """Over the seeds that logged it."""
    return float(np.mean([scalars[tag] for scalars in logged if tag in scalars]))
