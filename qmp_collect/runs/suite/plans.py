"""What is run: every plan, in the order in which its runs are made, with the hours of a core that a run takes.

Plans i to x are those of ``benchmark/PROTOCOL.md``. Seeds are run in order, and of a seed all arms.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qmp_collect.runs.suite.manifest import Device, Run


@dataclass(frozen=True)
class Arms:
    """What one script is run with, once for each of its switches; "" for a script that has none."""

    script: str
    flags: str = ""
    switches: tuple[str, ...] = ("own", "qmp")
    hours: float = 1.0
    """of a run, on one core or one GPU"""
    suffix: str = ""
    """tells apart what one script can do, at the end of a run's name"""
    label: str = ""
    """of the method, in tables and figures"""

    def name(self, switch: str, seed: int | str) -> str:
        """Of one run, and of the folder that it is published in."""
        return "_".join(filter(None, (self.script, switch))) + f"_seed{seed}{self.suffix}"

    @property
    def side_by_side(self) -> bool:
        """Whether its seeds can be one process: the didactic example's cannot, nor can those of compiled runs."""
        return self.script != "point_reaching" and "--compile" not in self.flags.split()


@dataclass(frozen=True)
class Plan:
    """Runs of several arms, with settings that all of them share."""

    settings: str
    arms: tuple[Arms, ...]
    seeds: tuple[int, ...]
    device: Device = "cpu"

    def runs(self, root: str, seeds: Sequence[int] = (), *, together: bool = False) -> list[Run]:
        """Its runs, in order.

        Args:
            root: folder of their folders.
            seeds: instead of its own.
            together: all seeds of an arm side by side in one process (``--num-seeds``), unless they are compiled.

        Raises:
            ValueError: ``together``, and the seeds are not consecutive.
        """
        seeds = tuple(seeds or self.seeds)
        if not together:
            return list(self._runs(root, [(seed, 1) for seed in seeds], self.arms))
        if seeds != tuple(range(seeds[0], seeds[0] + len(seeds))):
            raise ValueError(f"together: expected consecutive seeds, got {', '.join(map(str, seeds))}")
        side_by_side = tuple(arms for arms in self.arms if arms.side_by_side)
        others = tuple(arms for arms in self.arms if not arms.side_by_side)
        alone = [(seed, 1) for seed in seeds]
        return [*self._runs(root, [(seeds[0], len(seeds))], side_by_side), *self._runs(root, alone, others)]

    def _runs(self, root: str, seeds: Sequence[tuple[int, int]], of_arms: Sequence[Arms]) -> Iterator[Run]:
        """Of first seeds, and numbers of seeds side by side."""
        for seed, count in seeds:
            for arms in of_arms:
                for switch in arms.switches:
                    name = arms.name(switch, seed if count == 1 else f"s{seed}to{seed + count - 1}")
                    flags = [*shlex.split(self.settings), *shlex.split(arms.flags), "--seed", str(seed)]
                    flags += ["--num-seeds", str(count)] if count > 1 else []
                    flags += ["--switch", switch] if switch else []
                    argv = (f"cleanrl_scripts/{arms.script}.py", *flags)
                    # As of Reacher5 (benchmark/results/seeds.json). Larger batches gain less, smaller networks more.
                    hours = arms.hours * (count if count == 1 else 0.65 * count)
                    yield Run(name, str(Path(root, name)), argv, self.device, round(hours, 3))


SEPARATE, MULTIHEAD, HELPER = "sac_qmp_separate", "sac_qmp_multihead", "sac_qmp_helper"
FIVE, FOUR_MORE = (11, 12, 13, 14, 15), (5, 6, 7, 8)

REACHER = "--env-id Reacher5 --torch-threads 1"
MAZE = "--env-id Maze3 --torch-threads 1"
TABLE_4 = "--env-steps-per-round 1000 --gradient-steps-per-round 100"

TINY = (
    "--total-timesteps 300 --env-steps-per-round 50 --gradient-steps-per-round 5 --min-buffer-size 100 "
    "--batch-size 16 --hidden-dim 16 --eval-every 50 --checkpoint-every 100 --torch-threads 1"
)

# What a two-core machine can train in minutes: narrow networks, small batches, a high learning rate and a tenth of the
# steps that ``--env-id Maze3`` selects, and of the warm-up, where a method has one.
# 66 is a multiple of the three tasks: methods that share batches out evenly get as many samples as the others.
QUICK = (
    "--env-id Maze3 --total-timesteps 360000 --hidden-dim 128 --batch-size 66 --learning-rate 1e-3 --envs-per-task 4 "
    "--eval-every 18000 --checkpoint-every 360000 --torch-threads 1"
)
QUICK_SAC = (
    "--total-timesteps 80000 --hidden-dim 128 --batch-size 128 --learning-rate 1e-3 --envs-per-task 4 "
    "--eval-every 4000 --checkpoint-every 20000 --torch-threads 1"
)
SHORT_WARMUP = "--warmup-rounds 10"

# fmt: off
METHODS = (
    Arms(SEPARATE, label="No-Sharing", hours=0.06),
    Arms(MULTIHEAD, SHORT_WARMUP, label="Parameter-Sharing", hours=0.12),
    Arms("uds_qmp", label="Data-Sharing (UDS)", hours=0.14),
    Arms("sac_shared", switches=("",), label="Fully-Shared-Behaviors", hours=0.1),
    Arms("dnc", switches=("",), label="DnC", hours=0.07),
    # At ten times the paper's coefficient for mazes, as the committed runs were made; the script's default is 1e-4.
    Arms("dnc", "--no-distill --kl-coefficient 1e-3", ("",), 0.07, "_regularisation",
         label="DnC (regularisation only, 0.001)"),
    Arms("decaf", switches=("own",), label="DECAF", hours=0.11),
    Arms("mcal_qmp", "--critic mn", label="MCAL, critic per task", hours=0.1),
    Arms("mcal_qmp", "--critic mh", suffix="_multihead", label="MCAL, multihead critic", hours=0.09),
    # Compiled, a gradient step of PCGrad takes half the time here; one of the others gains nothing.
    Arms("pcgrad_qmp", f"{SHORT_WARMUP} --compile", label="PCGrad", hours=0.13),
)

# Who may act, who is trusted, and for how long, each by itself beside the plain Q-switch. Margins are in units of the
# spread of a task's own values.
TRUST = (
    Arms(SEPARATE, "", ("qmp",), 0.06, label="QMP"),
    *(
        Arms(SEPARATE, flags, ("qmp",), 0.06, suffix, label=f"QMP, {label}")
        for flags, suffix, label in (
            ("--switch-margin 0.1 --switch-relative", "_margin", "margin 0.1"),
            ("--switch-margin 0.5 --switch-relative", "_wide_margin", "margin 0.5"),
            ("--switch-hysteresis 0.1 --switch-relative", "_hysteresis", "hysteresis 0.1"),
            ("--success-gate 0.3", "_success_gate", "success gate 0.3"),
            ("--own-share-floor 0.5", "_own_floor", "own share from 0.5"),
            ("--horizon 10", "_horizon10", "10 steps"),
            ("--horizon 19 --horizon-rule uniform", "_uniform", "1 to 19 steps"),
            ("--horizon 100 --horizon-rule levy", "_levy", "Levy flights up to 100 steps"),
            ("--horizon 25 --horizon-rule until-own", "_until_own", "until the own one is better, up to 25 steps"),
        )
    ),
)

# A task, and what its helper is bad at. The demonstrations are a tenth of the steps of a run.
IMPERFECT = tuple(
    Arms(HELPER, f"--env-id MetaWorld{task} --helper {helper}{flags}", switches, 0.15, f"_{task}{suffix}", label=label)
    for task, helper in (("Push", "noisy"), ("DoorOpen", "slow"), ("DrawerOpen", "first-phase"))
    for flags, switches, suffix, label in (
        ("", ("own", "qmp", "uniform"), "", "SAC"),
        (" --switch-margin 0.1 --switch-relative", ("qmp",), "_margin", "SAC, margin 0.1"),
        (" --demonstration-rounds 16 --clone-steps 2000", ("own",), "_clone", "SAC, begun as a clone of the helper"),
    )
)

# For one GPU with 16 cores and 25 minutes, eight runs side by side: what matters most first, each of a length that fits
# beside the others, by what such runs took one at a time. With --slim a folder keeps logs and policy, a few MB; until a
# run is finished its checkpoint holds the replay too: 48 bytes a step of a maze to 524 of the kitchen, 100 to 340 MB.
GRAPHS = "--cudagraphs --torch-threads 1"
TEN_MAZES = "--env-id Maze10 --envs-per-task 8 --eval-every 60000"
GPU = (
    Arms(SEPARATE, f"{TEN_MAZES} --total-timesteps 4800000 --checkpoint-every 1200000", hours=0.1),
    Arms(SEPARATE, f"{TEN_MAZES} --total-timesteps 4800000 --checkpoint-every 1200000 --horizon 25", ("qmp",), 0.1,
         "_horizon25"),
    Arms(MULTIHEAD, f"{TEN_MAZES} --total-timesteps 1800000 --checkpoint-every 450000 --warmup-rounds 15", hours=0.17),
    Arms(SEPARATE, "--env-id Kitchen10 --envs-per-task 2 --total-timesteps 400000 --eval-every 40000 "
         "--checkpoint-every 100000 --eval-episodes 2", hours=0.17, suffix="_kitchen10"),
    Arms(SEPARATE, "--env-id MetaWorldMT10 --total-timesteps 1000000 --eval-every 50000 --checkpoint-every 250000 "
         "--eval-episodes 2", hours=0.2, suffix="_mt10"),
    Arms(SEPARATE, "--env-id MetaWorldCDS --envs-per-task 4 --total-timesteps 1000000 --eval-every 50000 "
         "--checkpoint-every 250000 --eval-episodes 4", hours=0.2, suffix="_cds"),
    Arms(SEPARATE, "--env-id Walker4 --envs-per-task 4 --total-timesteps 600000 --eval-every 48000 "
         "--checkpoint-every 150000 --eval-episodes 4", hours=0.2, suffix="_walker4"),
)

PLANS = {
    "smoke": Plan(TINY, (Arms("point_reaching", "--policy-learning-rate 1e-3", hours=0.002),), (1, 2, 3)),
    "i":    Plan(REACHER, (Arms(SEPARATE, hours=2.4),), FIVE),
    "ii":   Plan(REACHER, (Arms(SEPARATE, TABLE_4, hours=1.2),), FIVE),
    "iii":  Plan(REACHER, (Arms(SEPARATE, switches=("uniform", "domain"), hours=2.4),
                           Arms(SEPARATE, "--switch-critic-of proposer", ("qmp",), 2.4, "_proposer")), FIVE),
    "iv":   Plan(REACHER, (Arms(MULTIHEAD, hours=3.0),), FIVE),
    "v":    Plan(QUICK, METHODS, FOUR_MORE),
    "vi":   Plan(REACHER, (Arms(SEPARATE, "--horizon 10", ("qmp",), 2.4, "_horizon10"),
                           Arms("dnc", "--no-distill --kl-coefficient 1e-3", ("",), 3.5, "_regularisation")), FIVE),
    "vii":  Plan(MAZE, tuple(Arms(SEPARATE, f"--horizon {steps}", ("qmp",), 2.0, f"_horizon{steps}")
                             for steps in (1, 5, 10, 25, 50)), FIVE),
    "viii": Plan(REACHER, (Arms(SEPARATE, "--switch-critic-of next", ("qmp",), 2.4, "_next"),), FIVE),
    "ix":   Plan(QUICK, TRUST, FIVE),
    "x":    Plan(QUICK_SAC, IMPERFECT, FIVE),
    "comparison": Plan(QUICK, METHODS, (1, 2, 3, 4)),
    "gpu":  Plan(GRAPHS, GPU, (1,), "cuda"),
    # Plans i and iii on a GPU, where all seeds of an arm in one process (--together) are five processes side by side.
    "gpu_reacher": Plan(f"--env-id Reacher5 {GRAPHS} --checkpoint-every 400000", (
        Arms(SEPARATE, switches=("own", "qmp", "uniform", "domain"), hours=0.1),
        Arms(SEPARATE, "--switch-critic-of proposer", ("qmp",), 0.1, "_proposer"),
    ), FIVE, "cuda"),
}
# fmt: on
