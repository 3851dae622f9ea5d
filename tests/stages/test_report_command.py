"""`ppt report`: beside another run, and opened in the browser."""

import webbrowser


def test_a_report_stands_beside_another_run_and_is_opened(command, whole, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert command(*whole).code == 0
    out, other = tmp_path / "out", tmp_path / "other"
    assert command(*whole[:-1], other, "--set", "labels.min_agreement=0.5").code == 0
    said = command("report", out, "--against", other, "--open")
    assert (said.code, said.out) == (0, f"report: {out / 'report_against.html'}\n")
    assert opened == [(out / "report_against.html").as_uri()]
    assert "7 of 7 pairs are in both" in (out / "report_against.html").read_text(encoding="utf-8")
    assert command("report", out).out == f"report: {out / 'report.html'}\n"
    assert len(opened) == 1


def test_what_is_no_run_cannot_stand_beside_one(command, whole, tmp_path):
    assert command(*whole).code == 0
    said = command("report", tmp_path / "out", "--against", tmp_path / "none")
    assert said.code == 2
    assert "holds no finished records" in said.err
    assert not (tmp_path / "out" / "report_against.html").exists()
