"""The command itself, as a process: many clients, faults, and SIGTERM."""

import pytest

from bench import serve_load


@pytest.mark.slow
def test_nothing_is_lost_or_left_under_clients_with_faults(capsys: pytest.CaptureFixture[str]) -> None:
    code = serve_load.main(["--clients=16", "--requests=2", "--rows=4"])
    told = capsys.readouterr().out
    assert code == 0, told
    assert "other than alone or lost: 0" in told and "stopped on SIGTERM with code 0" in told
