# PlatoLM from scratch. `make` lists the targets; `make -n all` prints every command of the experiment.
#
# data/large.mk: the paper's own job (PRESET=7b or 1b). data/real.mk: a small model on your dialogues.
# data/checks.mk: benches, and comparisons with other programs.

PRESET  ?= tiny
SEED    ?= 0
PYTHON  ?= python3
VENV    ?= .venv
KNOWING ?= 1
$(if $(filter tiny smoke 1b 7b,$(PRESET)),,$(error PRESET=$(PRESET): known are tiny, smoke, 1b and 7b))
# the large presets use a real teacher by default, the small ones our own
LARGE   := $(filter 1b 7b,$(PRESET))
TEACHER ?= $(if $(LARGE),https://api.openai.com/v1,URL)
MODEL   ?= $(if $(LARGE),gpt-3.5-turbo,teacher)

# ---- presets: one row of sizes each ------------------------------------------------------------

#                 humans        simulated      steps: base, users, assistants          questions, held-out people
tiny_SIZES     = HUMANS=12000   DIALOGUES=2400 BASE=3800 SOCRATIC=800 ASSISTANT=550 QUESTIONS=40 HELD=300
smoke_SIZES    = HUMANS=1000    DIALOGUES=150  BASE=60   SOCRATIC=40  ASSISTANT=20   QUESTIONS=4  HELD=40
tiny_TIME      = 10 to 13 minutes
smoke_TIME     = about 1.5 minutes
size = $(patsubst $(1)=%,%,$(filter $(1)=%,$($(PRESET)_SIZES)))

# the learning rate was tuned on the ceiling arm alone
LEARN = --lr 3e-3 --tokens 1024 --seed $(SEED) --resume
# socratic's assistant is PlatoLM; floor is the base model without fine-tuning
TAUGHT = socratic blind human self-chat role-play oracle ceiling
ARMS   = $(TAUGHT) floor
# run as many stages in parallel as there are cores, one thread each
JOBS      ?= $(shell getconf _NPROCESSORS_ONLN || echo 2)
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif
# the run's directory; another seed, base or teacher gets a directory of its own
# (KNOWING=0: the base has not read the facts that people never ask about)
of_seed    = $(if $(filter-out 0,$(SEED)),-seed$(SEED))
of_base    = $(if $(filter 0,$(KNOWING)),-unknowing)
of_teacher = $(if $(filter-out URL,$(TEACHER)),-$(MODEL))
R          = runs/$(PRESET)$(of_seed)$(of_base)$(of_teacher)

# ---- which python: a private .venv, or with VENV=none the one in use ---------------------------

ifeq ($(VENV),none)
python  = $(PYTHON)
install =
else
python  = $(VENV)/bin/python
install = $(VENV)/installed
endif

# our own teacher and grader get no API key. A teacher elsewhere (make all TEACHER=https://... MODEL=...)
# gets the key, and the facts as its system message
ifeq ($(TEACHER),URL)
unexport OPENAI_API_KEY OPENAI_BASE_URL
with_teacher = $(python) -m data.harbour.teacher --
free = @test $(word 1,$(1)) -ot $(word 2,$(1)) || rm -f $(word 2,$(1))
else
sheet = $(R)/sheet.txt
endif
with_grader = env -u OPENAI_API_KEY $(python) -m data.harbour.grader --

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help all hello smoke test show clean card fetch plan

help: ## print this list
	@echo "PlatoLM from scratch: a user simulator, its dialogues, and the assistant they train"
	@echo
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /	/' | expand -t 16

ifeq ($(LARGE),)
all: hello $(R)/report.html ## the whole experiment, offline, on two CPU cores: 10 to 13 minutes
	@echo; $(python) -m data.experiment.next_questions --tell $(R)/questions.json
	@echo; echo "finished. Look at $(R)/report.html; the numbers are in $(R)/results.json,"
	@echo "the dialogues in $(R)/chat, the models beside it"
endif

plan: | $(install) ## commands, memory, hours and dollars of PRESET=7b or 1b (GPU=a100); runs nothing
	@$(MAKE) -n --no-print-directory all PRESET=$(or $(LARGE),7b) \
	    | $(python) -m data.experiment.cost_plan $(or $(LARGE),7b) $(if $(GPU),--gpu $(GPU))

hello:
	@echo "$(PRESET): $($(PRESET)_TIME) on two cores; stages already in $(R) are not run again"
	@echo "the results will be tables here, and a page: $(R)/report.html"

smoke: ## the same, far smaller, to see that everything runs: about 1.5 minutes
	@$(MAKE) --no-print-directory all PRESET=smoke
	@echo "everything runs; with so little training these numbers mean nothing"

test: $(install) $(and $(install),$(VENV)/installed-tests) ## all tests: about 3 minutes
	$(python) -m pytest -q tests

show: $(install) ## print one dialogue with the two masks, for Socratic and for PlatoLM: at once
	$(python) platolm.py show data/example.jsonl

clean: ## delete the runs of `make all` and `make smoke` (not .venv, not downloads, nothing paid for)
	@for run in runs/tiny* runs/smoke*; do \
	    if test -e $$run/sheet.txt; then echo "$$run stays: its teacher may have been paid"; else rm -rf $$run; fi; done
	rm -f runs/machine.json

# ---- installation -------------------------------------------------------------------------------

$(VENV)/installed: requirements.txt
	@echo "installing torch, sentencepiece, requests and numpy into $(VENV): a download of 0.2 GB (1 GB on"
	@echo "disk) where pip takes torch's CPU build, of several GB where it takes the one for GPUs"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) \
	    and "Python 3.10 or newer is needed: make PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r $<
	@touch $@

$(VENV)/installed-tests: tests/requirements.txt $(VENV)/installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r $<
	@touch $@

# the fastest precision and attention on this machine; timed once, before other stages use the cores
runs/machine.json: | $(install)
	$(python) -m data.machine

# ---- the experiment, stage by stage: each writes a file, and a file that exists is not made again

ifneq ($(LARGE),)
include data/large.mk
else

$(R)/%: export STAGE_SECONDS = $(R)/seconds.jsonl

$(R): | runs/machine.json
	mkdir -p $@

$(R)/corpus.jsonl: | $(R)
	$(python) -m data.harbour.corpus --out $@ --seed $(SEED)$(if $(filter 0,$(KNOWING)), --without-never-asked)

$(R)/human.jsonl: | $(R)
	$(python) -m data.experiment.talks people --out $@ --dialogues $(call size,HUMANS) --seed $(SEED) --prefix human

# the base model (LLaMA in the paper): pretrained on the encyclopaedia, and on people's dialogues as text
$(R)/base/model.safetensors: $(R)/corpus.jsonl $(R)/human.jsonl
	$(python) train.py --learn all --data $^ --out $(@D) --steps $(call size,BASE) \
	    --optimizer muon $(LEARN:3e-3=4e-3)

# the user simulators, trained on the human turns; `blind` never sees an answer
$(R)/socratic/model.safetensors: $(R)/human.jsonl $(R)/base/model.safetensors | $(R)/held-out.jsonl
	$(python) train.py --learn human --data $< --held-out $(R)/held-out.jsonl --base $(R)/base \
	    --out $(@D) --steps $(call size,SOCRATIC) $(LEARN)

# (without answers dialogues are shorter: with 704 tokens an update both learn equally many words)
$(R)/blind/model.safetensors: $(R)/human.jsonl $(R)/base/model.safetensors | $(R)/held-out.jsonl
	$(python) train.py --learn human --blind --data $< --held-out $(R)/held-out.jsonl --base $(R)/base \
	    --out $(@D) --steps $(call size,SOCRATIC) $(LEARN:1024=704)

# the simulator talks to the teacher over HTTP (a journal of an older simulator is deleted if it cost nothing)
$(R)/chat/socratic.jsonl: $(R)/socratic/model.safetensors $(sheet)
	$(call free,$< $@.journal)
	$(with_teacher) $(python) simulate.py --user $(R)/socratic --teacher $(TEACHER) --model $(MODEL) \
	    $(sheet:%=--system %) --out $@ --dialogues $(call size,DIALOGUES) --seed $(SEED) $(SIMULATE)

$(R)/chat/blind.jsonl: $(R)/blind/model.safetensors $(sheet)
	$(call free,$< $@.journal)
	$(with_teacher) $(python) simulate.py --user $(R)/blind --blind --teacher $(TEACHER) --model $(MODEL) \
	    $(sheet:%=--system %) --out $@ --dialogues $(call size,DIALOGUES) --seed $(SEED) $(SIMULATE)

$(R)/sheet.txt: | $(R)
	$(python) -m data.harbour.world > $@

# the dialogues to compare with: people's, scripts', and those of people who ask about everything
$(R)/chat/human.jsonl: $(R)/human.jsonl
	mkdir -p $(@D) && head -n $(call size,DIALOGUES) $< > $@

SCRIPTED = self-chat role-play oracle

$(SCRIPTED:%=$(R)/chat/%.jsonl): $(R)/chat/%.jsonl: $(R)/human.jsonl
	$(python) -m data.experiment.talks $* --human $< --out $@ --dialogues $(call size,DIALOGUES) --seed $(SEED)

$(R)/chat/ceiling.jsonl: | $(R)
	$(python) -m data.experiment.talks people --out $@ --dialogues $(call size,DIALOGUES) --seed 2$(SEED) \
	    --facts all --prefix ceiling

# the assistants, trained on the assistant's turns of each set; socratic's is PlatoLM
$(R)/assistant/%/model.safetensors: $(R)/chat/%.jsonl $(R)/base/model.safetensors
	$(python) train.py --learn gpt --data $< --base $(R)/base --out $(@D) \
	    --steps $(call size,ASSISTANT) $(LEARN)

# held-out data, which no model trains on
$(R)/held-out.jsonl: | $(R)
	$(python) -m data.experiment.talks people --out $@ --dialogues $(call size,HELD) --seed 1$(SEED) \
	    --prefix held-out

$(R)/held-out-all.jsonl: | $(R)
	$(python) -m data.experiment.talks people --out $@ --dialogues $(call size,HELD) --seed 3$(SEED) \
	    --facts all --prefix held-out-all

$(R)/bench/question.jsonl: | $(R)
	$(python) -m data.harbour.bench --out $@ --questions $(call size,QUESTIONS) --seed $(SEED)

$(R)/bench-formal/question.jsonl: | $(R)
	$(python) -m data.harbour.bench --formal --out $@ --questions $(call size,QUESTIONS) --seed $(SEED)

$(R)/bench-vicuna/question.jsonl: | $(R)
	$(python) -m data.harbour.bench --vicuna --out $@ --questions $(call size,QUESTIONS) --seed $(SEED)

$(R)/sentences.jsonl: | $(R)
	$(python) -m data.harbour.corpus --completions --out $@

BENCHES  = $(R)/bench $(R)/bench-formal $(R)/bench-vicuna
TRAINED  = $(TAUGHT:%=$(R)/assistant/%) floor=$(R)/base

$(R)/probes.json: $(TAUGHT:%=$(R)/assistant/%/model.safetensors) $(R)/sentences.jsonl
	$(python) -m data.experiment.probes $(TRAINED) --gold data/harbour/gold.jsonl \
	    --sentences $(R)/sentences.jsonl --out $@

JUDGED   = $(R)/bench/model_judgment/grader_single.jsonl

$(JUDGED): $(TAUGHT:%=$(R)/assistant/%/model.safetensors) $(BENCHES:%=%/question.jsonl)
	$(python) evaluate.py answer $(TRAINED) --bench $(BENCHES) --limit 48
	$(with_grader) $(python) evaluate.py judge $(ARMS) --bench $(BENCHES) \
	    --judge URL --judge-model grader

# PlatoLM in pairs against the stand-ins for Vicuna, Baize and UltraLLaMA
PAIRED   = $(R)/bench/model_judgment/grader_pair.jsonl

$(PAIRED): $(JUDGED)
	$(with_grader) $(python) evaluate.py judge human self-chat role-play --mode pairwise-baseline \
	    --baseline socratic --bench $(R)/bench --judge URL --judge-model grader

$(R)/results.json: $(JUDGED) $(PAIRED) $(R)/probes.json $(R)/listening.json $(R)/behaviour.json
	$(python) evaluate.py score $(ARMS) --bench $(R)/bench --judge-model grader \
	    --beside formal=$(R)/bench-formal vicuna=$(R)/bench-vicuna \
	    --probes $(R)/probes.json --seconds $(R)/seconds.jsonl --out $@

# does Socratic use the answers? its loss on held-out people beside blind's; then what each user did
$(R)/listening.json: $(R)/socratic/model.safetensors $(R)/blind/model.safetensors $(R)/held-out-all.jsonl
	$(python) -m data.experiment.listening expected $(R)/socratic --blind $(R)/blind \
	    --human $(R)/held-out-all.jsonl --out $@

USERS = human socratic blind self-chat role-play oracle ceiling

$(R)/behaviour.json: $(USERS:%=$(R)/chat/%.jsonl)
	$(python) -m data.experiment.listening did $(foreach user,$(USERS),$(user)=$(R)/chat/$(user).jsonl) --out $@

# the simulator's card. The twin is the base trained on answers; served and told to play the user, it is
# the prompted one
$(R)/card.json: $(R)/socratic/model.safetensors $(R)/assistant/human/model.safetensors \
                $(R)/chat/socratic.jsonl $(R)/chat/self-chat.jsonl $(R)/held-out.jsonl
	env -u OPENAI_API_KEY $(python) -m data.api.serve_checkpoint $(R)/assistant/human -- \
	    $(python) evaluate.py card --user $(R)/socratic --human $(R)/held-out.jsonl \
	    --twin $(R)/assistant/human --beside base=$(R)/base --teacher URL --model model \
	    --simulated user=$(R)/chat/socratic.jsonl self-chat=$(R)/chat/self-chat.jsonl --out $@

$(R)/stats.json: $(USERS:%=$(R)/chat/%.jsonl) $(R)/held-out.jsonl $(R)/bench/question.jsonl \
                 $(R)/base/model.safetensors
	$(python) evaluate.py stats $(USERS:%=$(R)/chat/%.jsonl) --tokenizer $(R)/base \
	    --human $(R)/held-out.jsonl --bench $(R)/bench/question.jsonl --out $@

$(R)/questions.json: $(R)/socratic/model.safetensors $(R)/held-out.jsonl
	$(python) -m data.experiment.next_questions --user $(R)/socratic --human $(R)/held-out.jsonl --out $@

$(R)/report.html: $(R)/results.json $(R)/questions.json $(R)/card.json $(R)/stats.json
	$(python) -m data.experiment.report $(R) --out $@

# stages run in parallel with one thread each; the base, for which the rest waits, uses all cores
$(R)/report.html: export OMP_NUM_THREADS = 1
$(R)/base/model.safetensors: export OMP_NUM_THREADS = $(JOBS)

endif

# ---- parts of it alone, and what comes from elsewhere ---------------------------------------------

card: $(R)/card.json ## the card of the simulator (part of make all): 1 minute after it

fetch: $(if $(BASE)$(DATA),$(install)) ## download a checkpoint (BASE=owner/model) or data set (DATA=owner/set) from the Hugging Face hub
	@test -n "$(BASE)$(DATA)" || { echo "make fetch BASE=owner/model, or DATA=owner/set: which?"; exit 1; }
	$(if $(BASE),$(python) -m data.formats.fetch $(BASE) --out runs/fetched/$(notdir $(BASE)))
	$(if $(DATA),$(python) -m data.formats.fetch "$(DATA)" $(if $(findstring ://,$(DATA)),,--dataset) \
	    --out runs/fetched/$(notdir $(firstword $(subst ?, ,$(DATA)))))

include data/real.mk data/checks.mk
