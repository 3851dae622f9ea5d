"""The training loop and its checkpoints: resumed, the same bytes; broken, refused."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ppt.checkpoint import CheckpointError, Checkpoints
from ppt.seeding import torch_generator
from ppt.training import DivergenceError, Held, Plan, train

PLAN = Plan(steps=12, rate=0.05, save_every=4, patience=2)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.GELU(), nn.Linear(8, 1))


def losses_of(model: nn.Module, poisoned: tuple[int, ...] = (), die_at: int = -1):
    def losses(step: int):
        if step == die_at:
            raise KeyboardInterrupt
        x = torch.randn(16, 3, generator=torch_generator(0, "test", str(step)))
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        return {
            "fit": loss * math.nan if step in poisoned else loss,
            "small": 1e-3 * model[0].weight.square().sum(),
        }

    return losses


def run(folder, plan: Plan = PLAN, fingerprint: str = "a", items_of=None, **how):
    folder.mkdir(exist_ok=True)
    model, known = network(), Checkpoints(folder, fingerprint)
    average = train(model, losses_of(model, **how), plan, known, folder / "log.jsonl", items_of=items_of)
    return model.state_dict(), average


def equal(one, two) -> bool:
    return all(torch.equal(one[name], two[name]) for name in one)


def test_the_rate_rises_and_falls():
    plan = Plan(steps=100, rate=1.0, warmup=0.1)
    rates = [plan.rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1, abs=1e-2)
    assert rates[99] == pytest.approx(0, abs=1e-6)
    assert rates.index(max(rates)) in (9, 10)


def test_it_learns(tmp_path):
    model = network()
    before = losses_of(model)(99)["fit"].item()
    train(
        model,
        losses_of(model),
        Plan(steps=150, rate=0.05),
        Checkpoints(tmp_path, "a"),
        tmp_path / "log.jsonl",
    )
    assert losses_of(model)(99)["fit"].item() < before / 10


@pytest.mark.parametrize("die_at", [0, 3, 4, 7, 11])
def test_a_training_killed_anywhere_ends_in_the_same_bytes(tmp_path, die_at):
    whole, averaged = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", die_at=die_at)
    resumed, averaged_too = run(tmp_path / "killed")
    assert equal(whole, resumed)
    assert equal(averaged, averaged_too)
    logs = [(tmp_path / name / "log.jsonl").read_bytes() for name in ("whole", "killed")]
    assert logs[0] == logs[1]
    assert logs[0].count(b"\n") == PLAN.steps


def test_a_complete_training_is_not_run_again(tmp_path):
    whole, _ = run(tmp_path / "whole")
    again, _ = run(tmp_path / "whole", die_at=0)
    assert equal(whole, again)


def test_a_loss_without_a_number_changes_nothing_and_is_counted(tmp_path):
    run(tmp_path / "poisoned", poisoned=(5,))
    rows = (tmp_path / "poisoned" / "log.jsonl").read_text().splitlines()
    assert rows[5] == '{"skipped":1.0,"step":5}'
    assert sum("skipped" in row for row in rows) == 1


def test_many_in_a_row_stop_it_at_the_last_good_checkpoint(tmp_path):
    with pytest.raises(DivergenceError, match=r"since step 5.*--fresh"):
        run(tmp_path / "lost", poisoned=(5, 6, 7, 8, 9, 10, 11))
    step, state = Checkpoints(tmp_path / "lost", "a").load()
    assert step == 4
    assert all(torch.isfinite(value).all() for value in state["model"].values())


def test_it_says_what_was_in_the_batches_that_have_no_loss(tmp_path):
    with pytest.raises(DivergenceError, match=r"first batch holds item 10, item 11; .*diverged\.jsonl names"):
        run(
            tmp_path / "lost",
            replace(PLAN, accumulate=2),
            poisoned=range(10, 24),
            items_of=lambda number: [f"item {number}"] if number != 10 else ["item 10", "item 11"],
        )
    rows = [json.loads(line) for line in (tmp_path / "lost" / "diverged.jsonl").read_text().splitlines()]
    assert [(row["step"], row["batch"]) for row in rows] == [
        (5, 10), (5, 11), (6, 12), (6, 13), (7, 14), (7, 15),
    ]  # fmt: skip
    assert rows[-1]["items"] == ["item 15"]


def test_checkpoints_of_other_settings_are_refused(tmp_path):
    run(tmp_path / "one")
    with pytest.raises(CheckpointError, match="other settings"):
        run(tmp_path / "one", fingerprint="b")


@pytest.mark.parametrize("ending", ["pt", "json"])
@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: bytes(len(data)), None])
def test_of_a_damaged_checkpoint_the_one_before_it_takes_the_place(tmp_path, capsys, ending, damage):
    whole, averaged = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", die_at=10)
    last = tmp_path / "cut" / f"step_00000008.{ending}"
    if damage is not None:
        last.write_bytes(damage(last.read_bytes()))
    elif ending == "pt":
        last.unlink()
    known, _ = Checkpoints(tmp_path / "cut", "a").load()
    assert known == (8 if damage is None and ending == "json" else 4)
    if known == 4:
        assert "step_00000008.pt: damaged; set aside, going on from step 4" in capsys.readouterr().err
        assert not last.exists()
        aside = [path.name for path in (tmp_path / "cut").glob("*.damaged")]
        assert aside == (["step_00000008.pt.damaged"] if damage else [])
    resumed, averaged_too = run(tmp_path / "cut")
    assert equal(whole, resumed)
    assert equal(averaged, averaged_too)
    assert (tmp_path / "cut" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


def test_where_all_checkpoints_are_damaged_a_person_decides(tmp_path):
    run(tmp_path / "one")
    for path in (tmp_path / "one").glob("step_*.pt"):
        path.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"12\.pt, .*08\.pt: damaged.*--fresh"):
            run(tmp_path / "one")


def test_the_last_two_checkpoints_are_kept_and_nothing_half_written(tmp_path):
    run(tmp_path / "one")
    (tmp_path / "one" / "step_00000009.pt.tmp").write_bytes(b"half")
    run(tmp_path / "one")
    names = {path.name for path in (tmp_path / "one").glob("step_*")}
    assert names == {f"step_000000{step}.{ending}" for step in ("08", "12") for ending in ("pt", "json")}


def test_the_rate_may_fall_along_a_power():
    plan = Plan(steps=100, rate=1.0, warmup=0.0, power=0.9)
    assert plan.rate_at(49) == pytest.approx(0.5**0.9)
    assert plan.rate_at(99) == 0


def test_gradients_of_several_batches_are_averaged(tmp_path):
    half = Plan(steps=1, rate=0.05, warmup=0.0, power=0.5, accumulate=2, clip=math.inf)

    def state_after(folder, plan, losses):
        model = network()
        (tmp_path / folder).mkdir()
        train(
            model, losses(model), plan, Checkpoints(tmp_path / folder, "a"), tmp_path / folder / "log.jsonl"
        )
        return model.state_dict()

    def both_at_once(model):
        one = losses_of(model)
        return lambda step: {"both": (one(0)["fit"] + one(1)["fit"] + one(0)["small"] + one(1)["small"]) / 2}

    together = state_after("together", replace(half, accumulate=1), both_at_once)
    apart = state_after("apart", half, losses_of)
    for name, value in together.items():
        torch.testing.assert_close(apart[name], value)


def test_bfloat16_computes_in_it_and_keeps_whole_weights(tmp_path):
    model, seen = network(), []

    def losses(step):
        seen.append(model(torch.ones(2, 3)).dtype)
        return losses_of(model)(step)

    plan = replace(PLAN, bfloat16=True)
    train(model, losses, plan, Checkpoints(tmp_path, "a"), tmp_path / "log.jsonl")
    assert set(seen) == {torch.bfloat16}
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


SCORES = [0.1, 0.5, 0.4, 0.3, 0.9]


def held(scores, patience=1) -> Held:
    left = iter(scores)
    return Held(lambda state: torch.ones(1, 1, dtype=torch.bool), lambda masks: next(left), patience)


def stopped_early(folder, scores, **how):
    folder.mkdir(exist_ok=True)
    model = network()
    plan = replace(PLAN, steps=20)
    log = folder / "log.jsonl"
    kept = train(model, losses_of(model, **how), plan, Checkpoints(folder, "a"), log, held=held(scores))
    return kept, log.read_text().splitlines()


def test_it_stops_when_what_was_held_out_gains_no_more_and_returns_the_best(tmp_path):
    kept, rows = stopped_early(tmp_path / "early", SCORES)
    assert len(rows) == 16, "checkpoints at 4, 8, 12 and 16: two without a better one are one too many"
    _, at_eight = run(tmp_path / "plain", replace(PLAN, steps=20))
    assert not equal(kept, at_eight)
    short = replace(PLAN, steps=20)
    model = network()
    folder = tmp_path / "until"
    folder.mkdir()
    there = train(model, losses_of(model), short, Checkpoints(folder, "a"), folder / "log.jsonl", until=8)
    assert equal(kept, there)
    assert '"held_out":0.5' in rows[7]


def test_an_early_stop_survives_a_kill(tmp_path):
    whole, rows = stopped_early(tmp_path / "whole", SCORES)
    with pytest.raises(KeyboardInterrupt):
        stopped_early(tmp_path / "killed", SCORES, die_at=9)
    again, told = stopped_early(tmp_path / "killed", SCORES[2:])
    assert equal(whole, again)
    assert rows == told
    finished, _ = stopped_early(tmp_path / "killed", [], die_at=16)
    assert equal(whole, finished)


MASKS = [[[0, 0, 0, 0]], [[0, 0, 0, 0]], [[1, 1, 1, 0]], [[1, 1, 1, 1]], [[0, 1, 1, 1]]]


def settling(folder, masks, settled, **how):
    folder.mkdir(exist_ok=True)
    model, left, log = network(), iter(masks), folder / "log.jsonl"
    held = Held(lambda state: torch.tensor(next(left)).bool(), lambda masks: float(masks.sum()), 9, settled)
    plan = replace(PLAN, steps=20)
    kept = train(model, losses_of(model, **how), plan, Checkpoints(folder, "a"), log, held=held)
    return kept, [json.loads(line) for line in log.read_text().splitlines()]


def test_it_stops_when_the_masks_of_what_was_held_out_have_settled(tmp_path):
    _, rows = settling(tmp_path, MASKS, 0.7)
    assert [row["alike"] for row in rows if "alike" in row] == [0, 0, 0, 0.75], "nothing drawn is not settled"
    assert len(rows) == 16
    _, rows = settling(tmp_path / "longer", MASKS, 0.75)
    assert len(rows) == 20


def test_settling_survives_a_kill(tmp_path):
    whole, rows = settling(tmp_path / "whole", MASKS, 0.7)
    with pytest.raises(KeyboardInterrupt):
        settling(tmp_path / "killed", MASKS, 0.7, die_at=13)
    again, told = settling(tmp_path / "killed", MASKS[3:], 0.7)
    assert equal(whole, again)
    assert [row.get("alike") for row in rows] == [row.get("alike") for row in told]
