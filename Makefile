# Two commands do all the set-up on a fresh machine:
#   make demo   fine-tunes the bundled network on the bundled drawings
#   make test   passes the tests
# Both keep their own virtual environment in .venv; PYTHON chooses the interpreter (3.10 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(shell find csrc setup.py pyproject.toml -type f)

.PHONY: demo test install schemas clean

demo: $(VENV)/.installed
	$(BIN)/nnlite finetune examples/assets/mobilenet_v2.onnx examples/assets/clipart8 --out tuned.onnx

test: $(VENV)/.tested
	$(BIN)/python -m pytest

install: $(VENV)/.installed

# Stamps: an environment is made once and brought up to date when what it is built from changes.
$(VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

# After onnx got new operators.
schemas: $(VENV)/.installed
	$(BIN)/python -c 'from nnlite.onnx.schemas import TABLE, lines; TABLE.write_text("\n".join([*lines(), ""]))'

clean:
	rm -rf $(VENV) build dist *.egg-info nnlite/_native*.so
