# PlatoLM from scratch. `make` lists what there is; `make -n all` is the table of contents.

PRESET  ?= tiny
SEED    ?= 0
PYTHON  ?= python3
VENV    ?= .venv
TEACHER ?= URL
MODEL   ?= teacher

# ---- presets: a row of sizes each --------------------------------------------------------------

#                 humans        simulated      steps: base, socratic, assistant       questions
tiny_SIZES     = HUMANS=12000   DIALOGUES=4000 BASE=1600 SOCRATIC=2000 ASSISTANT=1200 QUESTIONS=40
smoke_SIZES    = HUMANS=1000    DIALOGUES=200  BASE=100  SOCRATIC=100  ASSISTANT=60   QUESTIONS=5
tiny_TIME      = about 10 minutes
smoke_TIME     = about 1 minute
size = $(patsubst $(1)=%,%,$(filter $(1)=%,$($(PRESET)_SIZES)))

LEARN = --lr 3e-3 --tokens 1024 --seed $(SEED) --resume
ARMS  = socratic human self-chat ceiling
# another seed or teacher is another run
R     = runs/$(PRESET)$(if $(filter-out 0,$(SEED)),-seed$(SEED))$(if $(filter-out URL,$(TEACHER)),-$(MODEL))

# ---- where python comes from: a private .venv, or VENV=none for the one in use ------------------

ifeq ($(VENV),none)
python  = $(PYTHON)
install =
else
python  = $(VENV)/bin/python
install = $(VENV)/installed
endif

# our own teacher and grader need no key, so none is passed on; a teacher elsewhere
# (make all TEACHER=https://... MODEL=...) gets the key, and the facts as its system message
ifeq ($(TEACHER),URL)
unexport OPENAI_API_KEY OPENAI_BASE_URL
with_teacher = $(python) -m data.teacher --
else
sheet = $(R)/sheet.txt
endif
with_grader = env -u OPENAI_API_KEY $(python) -m data.grader --

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help all hello smoke test show clean parity

help: ## this list
	@echo "PlatoLM from scratch: a user simulator, its dialogues, and the assistant they train"
	@echo
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /	/' | expand -t 10

all: hello $(R)/results.json ## the whole paradigm on two CPU cores, offline: about 10 minutes
	@echo; echo "finished: $(R)/results.json; the dialogues are in $(R)/chat, the models beside it"

hello:
	@echo "$(PRESET): $($(PRESET)_TIME) on two cores; what is in $(R) already is not made again"
	@echo "the result will be a table here, and $(R)/results.json"

smoke: ## the same, far smaller (does everything run?): about 1 minute
	@$(MAKE) --no-print-directory all PRESET=smoke
	@echo "everything runs; so little training teaches nothing, and these scores mean nothing"

test: $(install) $(and $(install),$(VENV)/installed-tests) ## all tests: under 1 minute
	$(python) -m pytest -q tests

show: $(install) ## a dialogue as the two models see it, what is learnt and what is only read: at once
	$(python) platolm.py show data/example.jsonl

clean: ## delete what `make all` and `make smoke` made (not .venv)
	rm -rf runs

# ---- installation -------------------------------------------------------------------------------

$(VENV)/installed: requirements.txt
	@echo "installing torch, sentencepiece, requests and numpy into $(VENV): a download of 0.2 GB (1 GB on"
	@echo "disk) where pip takes torch's CPU build, of several GB where it takes the one for GPUs"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r $<
	@touch $@

$(VENV)/installed-tests: tests/requirements.txt $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r $<
	@touch $@

# ---- the paradigm, stage by stage: each is a file, and a file that is there is not made again ----

$(R)/corpus.jsonl: | $(install)
	$(python) -m data.corpus --out $@ --seed $(SEED)

$(R)/human.jsonl: | $(install)
	$(python) -m data.people --out $@ --dialogues $(call size,HUMANS) --seed $(SEED)

$(R)/held-out.jsonl: | $(install)
	$(python) -m data.people --out $@ --dialogues 300 --seed 1$(SEED) --prefix held-out

# what LLaMA is to the paper: it has read about the harbour, and never a dialogue
$(R)/base/model.safetensors: $(R)/corpus.jsonl
	$(python) train.py --learn all --data $< --out $(@D) --steps $(call size,BASE) $(LEARN)

# the flip: learn what humans said
$(R)/socratic/model.safetensors: $(R)/human.jsonl $(R)/held-out.jsonl $(R)/base/model.safetensors
	$(python) train.py --learn human --data $< --held-out $(R)/held-out.jsonl --base $(R)/base --out $(@D) --steps $(call size,SOCRATIC) $(LEARN)

# let the simulator talk to the teacher, over HTTP; one thread writes, the other core is the teacher's
$(R)/chat/socratic.jsonl: $(R)/socratic/model.safetensors $(sheet)
	$(with_teacher) env OMP_NUM_THREADS=1 $(python) simulate.py --user $(R)/socratic --teacher $(TEACHER) --model $(MODEL) $(sheet:%=--system %) --out $@ --dialogues $(call size,DIALOGUES) --seed $(SEED)

$(R)/sheet.txt: | $(install)
	mkdir -p $(@D) && $(python) -m data.world > $@

# what it is compared with: people, a script, and people who ask about everything
$(R)/chat/human.jsonl: $(R)/human.jsonl
	mkdir -p $(@D) && head -n $(call size,DIALOGUES) $< > $@

$(R)/chat/self-chat.jsonl: $(R)/human.jsonl
	$(python) -m data.scripts self-chat --human $< --out $@ --dialogues $(call size,DIALOGUES) --seed $(SEED)

$(R)/chat/ceiling.jsonl: | $(install)
	$(python) -m data.people --out $@ --dialogues $(call size,DIALOGUES) --seed 2$(SEED) --facts all --prefix ceiling

# the assistants: learn what gpt said; socratic's is PlatoLM
$(R)/assistant/%/model.safetensors: $(R)/chat/%.jsonl $(R)/base/model.safetensors
	$(python) train.py --learn gpt --data $< --base $(R)/base --out $(@D) --steps $(call size,ASSISTANT) $(LEARN)

$(R)/bench/question.jsonl: | $(install)
	$(python) -m data.bench --out $@ --questions $(call size,QUESTIONS) --seed $(SEED)

# the floor is the base as it is
$(R)/results.json: $(ARMS:%=$(R)/assistant/%/model.safetensors) $(R)/bench/question.jsonl
	$(python) evaluate.py answer $(ARMS:%=$(R)/assistant/%) floor=$(R)/base --bench $(R)/bench
	$(with_grader) $(python) evaluate.py judge $(ARMS) floor --bench $(R)/bench --judge URL
	$(python) evaluate.py score $(ARMS) floor --bench $(R)/bench --out $@

# ---- the same logits and ids as transformers? in an environment of its own ------------------------

parity: $(VENV)-parity/installed ## logits and ids against transformers (DATA=dialogues.json: more text): 1 minute
	$(VENV)-parity/bin/python -m tests.parity $(DATA)

$(VENV)-parity/installed: tests/parity-requirements.txt requirements.txt
	@echo "installing transformers and what it needs into $(VENV)-parity: a further download of 0.1 GB"
	$(PYTHON) -m venv $(VENV)-parity
	$(VENV)-parity/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r $<
	@touch $@
