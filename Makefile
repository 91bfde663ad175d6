# make check: before every commit.  make all: with every server that this machine has.

.PHONY: check all format

check: bin/ruff
	bin/ruff format --check .
	bin/ruff check .
	bin/mypy --python-executable .venv/bin/python
	bin/test -u

all: check
	bin/test

format: bin/ruff
	bin/ruff format .
	bin/ruff check --fix .

bin/ruff: bin/buildout
	bin/buildout install lint

bin/buildout: bootstrap.py
	python3 bootstrap.py
	bin/buildout
