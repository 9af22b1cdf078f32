import pytest

from constructions.cli import main


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Makes a function that runs a command line in an empty folder: (status, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def prepare(module):
        def call(*arguments):
            with pytest.raises(SystemExit) as stop:
                main(module.PROGRAM, module.Options, module.run, list(arguments))
            captured = capsys.readouterr()
            return stop.value.code, captured.out, captured.err

        return call

    return prepare
