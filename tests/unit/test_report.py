import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
from fixtures.report_run import Scene, make_run, plain_scenes

from ppt import times
from ppt.report import ReportError, build_report
from ppt.report.gather import read_run, with_pictures
from ppt.report.index import filters
from ppt.store import ArtifactError

HOSTILE = '</style><script>document.title="owned"</script><img src=x onerror=alert(1)>'


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("report"), plain_scenes(9))


@pytest.fixture
def own(run, tmp_path):
    """A copy of the run that a test may spoil, with its images beside it."""
    shutil.copytree(run.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("report.html"))
    return tmp_path / "copy" / "run"


def page(output, **options):
    options.setdefault("images_root", output.parent / "images")
    return build_report(output, **options).read_text(encoding="utf-8")


def sentences(html):
    return [unescape(found) for found in re.findall(r'<h3 dir="auto">(.*?)</h3>', html, re.DOTALL)]


def facts(html):
    """What the page hands to its script."""
    found = re.search(r'<script type="application/json" id="run">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def column(found, name):
    return [row[found["columns"].index(name)] for row in found["items"]]


def card(html, number):
    return html.split('<li class="card"')[number]


def test_every_item_has_a_card_worst_first(run):
    html = page(run)
    weights = [float(w) for w in re.findall(r'data-weight="([^"]+)"', html)]
    assert len(weights) == 18
    assert weights == sorted(weights)
    assert weights[0] == -1, "the item that failed comes before those that weigh nothing"
    assert len(set(sentences(html))) == 18


def test_a_card_shows_points_candidates_the_choice_and_why(run):
    html = card(page(run), 18)
    candidates = html.split("<figure")
    assert sum("Candidate" in part and "predicted IoU" in part for part in candidates) == 3
    chosen = [part for part in candidates if 'class="tag">chosen' in part]
    assert len(chosen) == 1
    assert "IoU with truth" in chosen[0]
    assert "Fits the relevance map best" in html
    assert re.search(r'<use href="#(plus)" x="[\d.-]+"', html)
    assert "data:image/png;base64," in html


def test_points_lie_where_the_masks_stage_put_them_positive_ones_on_top(run):
    html = page(run)
    stored = {row["id"]: row for row in read_run(run).stages["masks"].rows()}
    labels = {"plus": 1, "minus": 0, "ignored": -1}
    drawn = r'<use href="#(plus|minus|ignored)" x="([^"]+)" y="([^"]+)" width="([^"]+)"'
    seen = 0
    for part in html.split('<li class="card"')[1:]:
        id = re.search(r'<p class="meta"><code>(.*?)</code>', part)
        assert id is not None
        found = [
            (labels[s], float(x) + float(w) / 2, float(y) + float(w) / 2)
            for s, x, y, w in re.findall(drawn, part)
        ]
        assert [label for label, *_ in found] == sorted(label for label, *_ in found)
        points = stored[id[1]]["points"] if id[1] in stored else []
        wanted = [(label, x, y) for x, y, label in sorted(points, key=lambda point: point[2])]
        np.testing.assert_allclose(np.array(found).reshape(-1, 3), np.array(wanted).reshape(-1, 3), atol=0.1)
        seen += len(found)
    assert seen > 40


def test_a_failed_item_says_why(run):
    assert "masks: the decoder gave values that are not finite" in card(page(run), 1)


def test_a_refused_row_is_told_apart_from_the_item_that_shares_its_id(run):
    html = page(run)
    assert "was used on line 1 already" in html.split("Rows that never became an item")[1]
    assert "was used on line 1 already" not in html.split("Rows that never became an item")[0]


def test_each_photograph_is_in_the_page_once(run):
    html = page(run)
    assert html.count("data:image/jpeg;base64,") == 9
    used = set(re.findall(r'href="#(photo-\d+)"', html))
    assert used == set(re.findall(r'id="(photo-\d+)"', html))


def test_every_reference_in_the_page_leads_somewhere(run):
    html = page(run)
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', html)) <= set(ids)


def test_the_page_asks_nothing_of_the_network_and_runs_only_its_own_script(run):
    html = page(run)
    bare = re.sub(r"data:[^\"]+", "", html)
    assert not re.search(r'(?:src|href|url\()\s*=?\s*["\']?(?:https?:)?//', bare)
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert "default-src 'none'" in html


def test_hostile_text_stays_text(tmp_path):
    scene = plain_scenes(1)[0]
    name = "a&b<script>'\".png"
    output = make_run(
        tmp_path, [Scene(name, scene.image, ((HOSTILE, scene.sentences[0][1]), *scene.sentences[1:]))]
    )
    html = page(output)
    assert HOSTILE in sentences(html)
    assert html.count("<script>") == 1
    assert "<img" not in html
    assert name not in html
    assert name in unescape(html)


@pytest.mark.parametrize(
    "text", ["{{ 7 * 7 }}", "{% raw %}", "שלום dog \u202e live", "line\u2028end", "🐕 犬"]
)
def test_sentences_are_shown_as_they_are(tmp_path, text):
    scene = plain_scenes(1)[0]
    output = make_run(
        tmp_path, [replace(scene, sentences=((text, scene.sentences[0][1]), *scene.sentences[1:]))]
    )
    assert text in sentences(page(output))


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(own, run):
    first = build_report(run, run.parent / "images").read_bytes()
    assert build_report(own, own.parent / "images").read_bytes() == first
    assert str(own.parent).encode() not in first


def test_nothing_but_the_page_is_written(own):
    before = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    assert build_report(own, own.parent / "images") == own / "report.html"
    after = {path: path.read_bytes() for path in own.rglob("*") if path.is_file()}
    del after[own / "report.html"]
    assert after == before


def test_without_images_the_page_says_so_and_still_draws(run):
    html = page(run, images_root=None)
    assert "No images folder was given" in html
    assert "data:image/jpeg" not in html
    assert html.count('<rect id="photo-') == 9
    assert "mask-18-0" in html


@pytest.mark.parametrize(("spoil", "why"), [("remove", "does not exist"), ("change", "changed: sha256")])
def test_an_image_that_is_gone_or_changed_is_not_passed_off_as_the_one_that_was_read(own, spoil, why):
    path = own.parent / "images" / "picture_003.png"
    path.unlink() if spoil == "remove" else path.write_bytes(path.read_bytes() + b"x")
    html = page(own)
    assert html.count("The photograph cannot be shown") == 2
    assert why in html
    assert html.count("data:image/jpeg;base64,") == 8


def test_truth_and_scores_appear_where_the_run_was_evaluated(run):
    html = page(run)
    assert "IoU with truth" in html
    assert '<option value="iou">' in html
    assert "<td" in html.split("<h2>Metrics</h2>")[1]


def test_the_segmenters_masks_stand_beside_the_labels(tmp_path):
    output = make_run(tmp_path, plain_scenes(5), segmenter=True)
    html = page(output)
    cards = html.split('<li class="card"')[1:]
    assert len(cards) == 10
    nothing = [one for one in cards if "<code>0003-0</code>" in one]
    assert len(nothing) == 1
    for one in cards:
        [shown] = [part for part in one.split("<figure") if "<b>Segmenter</b>" in part]
        if one in nothing:
            assert "<dt>none</dt>" in shown
            assert "<dd>0.000</dd>" in shown
            assert 'class="fill"' not in shown
        else:
            assert "<dt>sure</dt><dd>0.75</dd>" in shown
            assert "<dt>IoU with truth</dt><dd>1.000</dd>" in shown
            assert 'class="fill"' in shown
    assert "0.812" in html.split("<h2>Metrics</h2>")[1]
    assert "Segmenter, mIoU" in html


def test_the_quality_orders_the_items_and_says_what_to_do_and_why(tmp_path):
    output = make_run(tmp_path, plain_scenes(6), judged=True)
    html = page(output)
    cards = html.split("</ol>")[0].split('<li class="card"')[1:]
    worth = [float(one.split('data-worth="')[1].split('"')[0]) for one in cards]
    assert worth == sorted(worth)
    assert worth[0] == -1, "what failed has no quality"
    for one, value in zip(cards[1:], worth[1:], strict=True):
        band = "keep" if value >= 0.75 else "review" if value >= 0.5 else "drop"
        assert f'data-band="{band}"' in one
        assert f"<small>{band}</small>{value:.2f}" in one
        differs = "A second opinion differs: the segmenter means something else (IoU 0.12)." in one
        assert differs == (band != "keep" and 'class="chosen"' in one)
    assert "lowest quality first" in html
    assert '<option value="drop">drop (' in html
    assert "keep 3 · review 3 · drop 5" in html


def test_without_quality_items_go_by_weight(run):
    html = page(run)
    assert "lowest weight first" in html
    assert "Quality" not in html.split("</style>")[1].split("<script>")[0]


def test_without_a_segmenter_nothing_is_said_of_one(run):
    assert "egmenter" not in page(run).split("</style>")[1].split("<script>")[0]


def test_the_truth_stays_locked_in_a_run_that_was_not_evaluated(tmp_path):
    output = make_run(tmp_path, plain_scenes(2), evaluated=False)
    (output / "truth").mkdir()
    for name in ("index.json", "manifest.json", "truth.jsonl"):
        (output / "truth" / name).write_text("not to be read")
    html = page(output)
    assert "truth" not in html.split("</style>")[1].split("<script>")[0].lower()
    assert "<h2>Metrics</h2>" not in html


def test_a_scored_run_whose_truth_was_taken_away_is_still_shown(own):
    shutil.rmtree(own / "truth")
    html = page(own)
    assert "<dt>IoU with truth" not in html
    assert '<option value="iou">' in html


def test_a_run_under_way_shows_what_there_is(own):
    shutil.rmtree(own / "evaluate")
    assert "<dt>IoU with truth" not in page(own)
    shutil.rmtree(own / "labels")
    html = page(own)
    assert "Candidate 1" in html
    assert "The run stands after the stage “masks”" in html
    shutil.rmtree(own / "masks")
    html = page(own)
    assert "Candidate 1" not in html
    assert "data:image/png" in html
    shutil.rmtree(own / "relevance")
    html = page(own)
    assert "data:image/png" not in html
    assert html.count('<li class="card"') == 18


def test_a_stage_made_from_what_is_no_longer_there_is_pointed_out(own, tmp_path):
    assert "was made from another" not in page(own)
    other = make_run(tmp_path / "other", plain_scenes(9), seed=1)
    shutil.rmtree(own / "labels")
    shutil.copytree(other / "labels", own / "labels")
    html = page(own)
    assert "“labels” was made from another “masks”" in html
    assert "“evaluate” was made from another “labels”" in html
    assert "“masks” was made" not in html
    assert "<dt>IoU with truth" not in html, "a truth that may belong to other pictures is not drawn"


def test_a_folder_without_a_run_is_refused_by_name(tmp_path):
    with pytest.raises(ReportError, match=f"{tmp_path.name} holds no finished records"):
        build_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_a_damaged_artifact_is_an_error_and_no_page(own):
    shard = own / "masks" / "shards" / "00000.jsonl"
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(ArtifactError, match=r"masks.*damaged"):
        page(own)
    assert not (own / "report.html").exists()


def test_beyond_the_limit_items_lie_beside_the_page(own):
    html = page(own, limit=6)
    assert "The first 6 are in this file, report_files has the others." in html
    assert "img-src data: file:;" in html
    assert "'strict-dynamic'" in html
    found = facts(html)
    ids = [item.id for item in read_run(own).items]
    assert column(found, "id") == ids
    assert re.findall(r'<p class="meta"><code>(.*?)</code>', html) == ids[:6]
    [beside] = sorted((own / "report_files").glob("items_*.js"))
    edition, number, cards, photos = json.loads(f"[{beside.read_text().removeprefix('pptItems(')[:-3]}]")
    assert (edition, number) == (found["edition"], 0)
    assert [re.findall(r'<p class="meta"><code>(.*?)</code>', one)[0] for one in cards] == ids[6:]
    known = set(re.findall(r'id="(photo-\d+)"', html)) | set(photos)
    assert {name for one in cards for name in re.findall(r'href="#(photo-\d+)"', one)} <= known
    for markup in photos.values():
        path = re.search(r'href="(report_files/[0-9a-f]{32}\.jpg)"', markup)
        assert path is not None
        assert (own / path[1]).read_bytes()[:2] == b"\xff\xd8"


def test_the_files_beside_a_page_are_those_that_it_needs(own):
    page(own, limit=3)
    first = {path.name: path.read_bytes() for path in (own / "report_files").iterdir()}
    page(own, limit=3)
    assert {path.name: path.read_bytes() for path in (own / "report_files").iterdir()} == first
    (own / "report_files" / "items_0099.js").write_text("old")
    (own / "report_files" / "mine.txt").write_text("a person's own")
    page(own, limit=10)
    left = {path.name for path in (own / "report_files").iterdir()}
    assert "items_0099.js" not in left
    assert len(left) < len(first) + 1
    page(own)
    assert [path.name for path in (own / "report_files").iterdir()] == ["mine.txt"]
    (own / "report_files" / "mine.txt").unlink()
    page(own)
    assert not (own / "report_files").exists()


def test_hostile_text_beside_the_page_stays_text(tmp_path):
    scene = plain_scenes(1)[0]
    sentences = tuple((f"{HOSTILE} {side}", mask) for side, (_, mask) in enumerate(scene.sentences))
    output = make_run(tmp_path, [Scene("a.png", scene.image, sentences)])
    html = page(output, limit=1)
    beside = (output / "report_files" / "items_0001.js").read_text()
    for text in (html, beside):
        assert "<img src=x" not in text
        assert "</style><script>" not in text
    assert [words[0] for words in column(facts(html), "words")] == sorted(
        (text for text, _ in sentences), key=lambda text: text.endswith("0")
    )


def test_the_index_knows_of_every_item_what_it_is_sorted_and_searched_by(run):
    found = facts(page(run))
    items = read_run(run).items
    assert column(found, "id") == [item.id for item in items]
    assert column(found, "iou") == [None if i.iou is None else round(i.iou, 6) for i in items]
    told = [[found["strings"][number] for number in row] for row in column(found, "told")]
    assert any("the decoder gave values that are not finite" in " ".join(row) for row in told)
    assert column(found, "of") == [item.of for item in items]
    assert len(set(column(found, "of"))) == len([item for item in items if item.weight is not None]) + 1
    assert '<select class="filter" data-key="kinds"' in page(run)


def test_sentences_are_told_apart_by_kind_and_by_words_of_place(own):
    item, rows = read_run(own).items[0], len(read_run(own).items)
    other = replace(item.record.pair, text="a red ellipse", kind="")
    items = [item, replace(item, record=replace(item.record, pair=other))]
    assert filters(items) == [
        {"key": "place", "name": "Words of place", "choices": [("not positional", 1), ("positional", 1)]}
    ], "a kind of its own, or none, parts nothing"
    found = facts(page(own))
    assert sorted(column(found, "kind")) == ["name"] * (rows // 2) + ["position"] * (rows // 2)
    assert f'<option value="name">name ({rows // 2})</option>' in page(own)
    assert set(column(found, "place")) == {"positional"}


def test_how_long_the_stages_took_is_told(own):
    assert "How long the stages took" not in page(own)
    times.note(own, "masks", 4000.0, afresh=True)
    times.note(own, "labels", 2.25, afresh=True)
    times.note(own, "masks", 60.2, afresh=True)
    times.note(own, "masks", 30.0, afresh=False)
    assert times.told(own) == {"masks": 90.2, "labels": 2.25}
    drawn = re.search(r"<figure[^>]*><figcaption><b>How long.*?</figure>", page(own)).group()
    for said in ("1 min 32 s in all", "<dt>masks</dt>", "1 min 30 s", "<dt>labels</dt>", "2.2 s"):
        assert said in drawn
    with (own / times.FILE_NAME).open("ab") as file:
        file.write(b'{"stage": "quali')
    assert "How long the stages took" not in page(own)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (60.0, "1 min 0 s"),
        (125.4, "2 min 5 s"),
        (12000.0, "3 h 20 min"),
        (460_000.0, "5 days 7 h"),
    ],
)
def test_times_are_spoken(seconds, said):
    assert times.spoken(seconds) == said


def test_a_run_without_labels_is_not_reviewed(own):
    assert 'data-mark="keep"' in page(own)
    shutil.rmtree(own / "evaluate")
    shutil.rmtree(own / "labels")
    html = page(own)
    assert not facts(html)["reviewable"]
    assert "data-mark" not in html.split("<script")[0].split("</style>")[1]


def test_a_limit_below_one_is_refused(run):
    with pytest.raises(ValueError, match=r"got 0"):
        build_report(run, limit=0)


def test_pictures_belong_to_their_items(run):
    found = read_run(run)
    items = with_pictures(found, found.items)
    assert [item.id for item in items] == [item.id for item in found.items]
    stored = {
        row["id"]: row for row in map(json.loads, (run / "labels" / "labels.jsonl").read_text().splitlines())
    }
    for item in items:
        row = stored.get(item.id)
        if row is None or row["segmentation"] is None:
            assert item.chosen is None
        else:
            assert item.candidates[item.chosen].mask.to_json() == row["segmentation"]
        assert item.relevance is not None
        assert (item.relevance.height, item.relevance.width) == (item.record.height, item.record.width)
        assert np.isfinite(item.relevance.values).all()


def test_losses_are_counted_by_reason_most_frequent_first(run):
    losses = read_run(run).losses()
    assert dict(losses)["masks · bad masks"] == 1
    assert dict(losses)["records · duplicate id"] == 1
    assert [count for _, count in losses] == sorted((count for _, count in losses), reverse=True)
