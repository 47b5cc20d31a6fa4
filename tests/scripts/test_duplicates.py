"""What the scripts repeat is the same in all of them, down to the syntax tree: who read one file has read the others.

`FAMILIES` names everything that more than one script has: methods and fields of their classes, functions, constants
and the statements of their main blocks. A family is a set of scripts in which it is equal; a bar separates families.
Whoever changes a copy changes the others of its family, or says here that it may differ. Docstrings and comments are
not compared. ``python tests/scripts/test_duplicates.py`` prints what is found.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from script_files import SCRIPTS

SHORT = {
    "sac_qmp_separate": "separate", "sac_qmp_multihead": "multihead", "sac_qmp_helper": "helper",
    "sac_shared": "shared", "pcgrad_qmp": "pcgrad", "mcal_qmp": "mcal", "uds_qmp": "uds", "decaf": "decaf",
    "dnc": "dnc", "point_reaching": "point",
}  # fmt: skip

FAMILIES = """
(LOG_STD_MIN, LOG_STD_MAX) = all
Actor.__init__ = decaf dnc helper point separate uds | multihead pcgrad | mcal | shared
Actor.forward = decaf dnc helper point separate uds | multihead pcgrad | mcal | shared
Actor.get_action = decaf dnc helper mcal separate shared uds | multihead | pcgrad | point
Actor.noise = decaf dnc helper mcal multihead pcgrad separate shared uds
Agent.PARTS = decaf helper mcal multihead pcgrad point separate shared uds | dnc
Agent.TWINS = decaf dnc helper mcal multihead pcgrad separate shared uds
Agent.__init__ = helper separate uds | multihead pcgrad | decaf | dnc | mcal | point | shared
Agent.acting_weights = multihead separate
Agent.by_policy = decaf helper mcal separate uds
Agent.by_row = decaf dnc helper mcal separate uds | point
Agent.by_task = decaf dnc helper mcal separate uds | point
Agent.load_state_dict = decaf mcal multihead pcgrad point separate shared uds | dnc | helper
Agent.mean = mcal | multihead
Agent.mean_policy = decaf dnc helper mcal point separate uds | multihead pcgrad | shared
Agent.own_policy = decaf dnc helper mcal point separate uds | multihead pcgrad | shared
Agent.policies = decaf uds | helper | mcal | multihead | pcgrad | point | separate
Agent.q_functions = mcal point uds | decaf | helper | multihead | pcgrad | separate
Agent.set_acting_weights = multihead separate
Agent.state_dict = decaf mcal multihead pcgrad point separate shared uds | dnc | helper
Agent.update = helper point separate | decaf | dnc | multihead | pcgrad | shared | uds
Args.batch_size = decaf dnc helper mcal multihead pcgrad separate shared uds | point
Args.buffer_size = all
Args.entropy_term = multihead separate
Args.env_id = helper | point
Args.env_steps_per_round = decaf dnc mcal multihead pcgrad separate shared uds | helper | point
Args.envs_per_task = all
Args.exp_name = all
Args.gamma = all
Args.gradient_steps_per_round = decaf dnc mcal multihead pcgrad separate shared uds | helper | point
Args.hidden_dim = decaf dnc helper mcal separate uds | multihead pcgrad shared | point
Args.horizon = decaf helper mcal multihead pcgrad point separate uds
Args.horizon_rule = helper multihead separate
Args.hosts = multihead separate
Args.learning_rate = decaf dnc helper mcal multihead pcgrad separate shared uds | point
Args.min_buffer_size = decaf dnc mcal multihead pcgrad separate shared uds | helper | point
Args.num_seeds = decaf dnc helper mcal multihead pcgrad separate shared uds
Args.own_fraction = decaf helper mcal multihead pcgrad point separate uds
Args.own_probability = decaf helper mcal multihead pcgrad point separate uds
Args.own_probability_final = decaf helper mcal multihead pcgrad point separate uds
Args.own_share_floor = helper multihead separate
Args.success_gate = helper multihead separate
Args.switch = mcal pcgrad point uds | multihead separate | decaf | helper
Args.switch_critic = helper multihead separate
Args.switch_hysteresis = helper multihead separate
Args.switch_margin = helper multihead separate
Args.switch_relative = helper multihead separate
Args.switch_samples = multihead separate
Args.switch_score = multihead separate
Args.switch_temperature = multihead separate
Args.target_entropy_scale = all
Args.tau = all
Args.total_timesteps = helper | point
Args.warmup_rounds = decaf helper mcal multihead pcgrad point separate uds
ENV_SETTINGS = multihead separate
HELPERS = helper | point
PRESETS = decaf mcal separate uds | multihead pcgrad | dnc | shared
SoftQNetwork.__init__ = dnc helper point separate uds | multihead pcgrad | decaf | mcal | shared
SoftQNetwork.forward = dnc helper point separate uds | multihead pcgrad | decaf | mcal | shared
StackedLinear.__init__ = decaf dnc helper mcal point separate shared uds | multihead pcgrad
StackedLinear.forward = decaf dnc helper mcal point separate uds | multihead | pcgrad | shared
class Actor = all
class Agent = all
class Args = all
class SoftQNetwork = all
class StackedLinear = all
entropies = multihead separate
main: (obs_space, action_space) = all
main: agent = decaf dnc helper mcal multihead pcgrad separate uds | point | shared
main: args = all
main: buffer = decaf dnc helper mcal multihead pcgrad separate shared uds | point
main: capacity = decaf dnc helper mcal point separate uds | multihead pcgrad shared
main: collector = decaf mcal pcgrad uds | dnc | helper | point | shared
main: device = all
main: dims = decaf dnc helper mcal multihead pcgrad separate shared uds
main: env_settings = decaf dnc helper mcal pcgrad point shared uds
main: envs = decaf dnc helper mcal pcgrad point shared uds | multihead separate
main: envs.close = all
main: eval_envs = decaf dnc helper mcal pcgrad point shared uds | multihead separate
main: eval_envs.close = all
main: if action_space != gym.spaces.Box(-1.0, 1.0, action_space.shape) = all
main: if args.hosts = multihead separate
main: if args.switch != 'own' and args.total_timesteps <= warmup_steps = decaf helper mcal multihead pcgrad point separate uds
main: if not run.updates_due = decaf mcal separate uds | multihead pcgrad shared | dnc | helper | point
main: if run.evaluation_due() = decaf dnc helper mcal multihead pcgrad separate shared uds | point
main: losses = all
main: num_envs = decaf dnc helper mcal pcgrad shared uds | multihead separate | point
main: num_tasks = all
main: of_tasks = decaf dnc helper mcal multihead pcgrad separate shared uds
main: round_steps = all
main: rows = decaf dnc helper mcal pcgrad shared uds | multihead separate | point
main: run = all
main: run.accelerate = decaf multihead pcgrad point separate uds | dnc | helper | mcal | shared
main: run.check_learning_starts = decaf dnc helper mcal point separate uds | multihead pcgrad shared
main: run.end_round = all
main: run.save_videos = all
main: task_set = all
main: warmup_steps = decaf helper mcal multihead pcgrad point separate uds
main: while run.update_due() = decaf helper point separate | dnc | mcal | multihead | pcgrad | shared | uds
make_candidate_mask = helper multihead separate
make_collector = multihead separate
make_horizon = helper multihead separate
make_host = multihead separate
make_switch = helper | multihead | separate
own_head = multihead pcgrad
parse_args = decaf mcal multihead pcgrad separate shared uds | dnc | helper | point
"""  # noqa: E501


def without_docstrings(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def units(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Names and code of what the statements define or do; imports and docstrings aside."""
    for node in body:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant()):
                continue
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                yield from units(node.body, "main: ")
            case ast.With() | ast.While(test=ast.Call(func=ast.Attribute(attr="unfinished"))):
                yield from units(node.body, prefix)
            case ast.ClassDef():
                yield prefix + f"class {node.name}", ast.unparse([*node.decorator_list, *node.bases])  # type: ignore[arg-type]
                yield from units(node.body, f"{node.name}.")
            case ast.FunctionDef():
                yield prefix + node.name, without_docstrings(node)
            case ast.Assign():
                yield prefix + ast.unparse(node.targets[0]), ast.unparse(node)
            case ast.AnnAssign():
                yield prefix + ast.unparse(node.target), ast.unparse(node)
            case ast.Expr(value=ast.Call()):
                yield prefix + ast.unparse(node.value.func), ast.unparse(node)
            case ast.If() | ast.While():
                yield prefix + f"{type(node).__name__.lower()} {ast.unparse(node.test)}", ast.unparse(node)
            case _:
                raise NotImplementedError(f"line {node.lineno}: teach `units` about {type(node).__name__}")


def found_families() -> str:
    scripts: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))  # by name and code
    for name, short in SHORT.items():
        parts: dict[str, list[str]] = defaultdict(list)
        for unit, code in units(ast.parse((SCRIPTS / f"{name}.py").read_text()).body):
            parts[unit].append(code)
        for unit, codes in parts.items():
            scripts[unit]["\n".join(codes)].append(short)
    lines = []
    for unit, families in scripts.items():
        if sum(map(len, families.values())) > 1:
            ordered = sorted(map(sorted, families.values()), key=lambda family: (-len(family), family))
            texts = ["all" if len(family) == len(SHORT) else " ".join(family) for family in ordered]
            lines.append(f"{unit} = {' | '.join(texts)}")
    return "\n".join(sorted(lines))


def test_every_script_is_here() -> None:
    assert sorted(SHORT) == sorted(path.stem for path in SCRIPTS.glob("*.py"))


def test_what_scripts_repeat_is_equal_where_it_has_to_be() -> None:
    found, named = found_families().splitlines(), sorted(FAMILIES.strip().splitlines())
    assert sorted(set(found) - set(named)) == sorted(set(named) - set(found)) == []


if __name__ == "__main__":
    print(found_families())
