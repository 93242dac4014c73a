# PlatoLM from scratch. `make` lists what there is; `make -n all` is the table of contents.

PRESET  ?= tiny
SEED    ?= 0
PYTHON  ?= python3
VENV    ?= .venv
KNOWING ?= 1
$(if $(filter tiny smoke 1b 7b,$(PRESET)),,$(error PRESET=$(PRESET): known are tiny, smoke, 1b and 7b))
# with real weights a real teacher, else our own
LARGE   := $(filter 1b 7b,$(PRESET))
TEACHER ?= $(if $(LARGE),https://api.openai.com/v1,URL)
MODEL   ?= $(if $(LARGE),gpt-3.5-turbo,teacher)

# ---- presets: a row of sizes each --------------------------------------------------------------

#                 humans        simulated      steps: base, users, assistants          questions, held-out people
tiny_SIZES     = HUMANS=12000   DIALOGUES=2400 BASE=3800 SOCRATIC=800 ASSISTANT=550 QUESTIONS=40 HELD=300
smoke_SIZES    = HUMANS=1000    DIALOGUES=150  BASE=60   SOCRATIC=40  ASSISTANT=20   QUESTIONS=4  HELD=40
tiny_TIME      = 10 to 13 minutes
smoke_TIME     = about 1.5 minutes
size = $(patsubst $(1)=%,%,$(filter $(1)=%,$($(PRESET)_SIZES)))

# the rate was chosen by one thing alone: what the ceiling arm learns
LEARN = --lr 3e-3 --tokens 1024 --seed $(SEED) --resume
# socratic is PlatoLM; the floor is the base as it is
TAUGHT = socratic blind human self-chat role-play oracle ceiling
ARMS   = $(TAUGHT) floor
# as many stages side by side as there are cores, one thread each
JOBS      ?= $(shell getconf _NPROCESSORS_ONLN || echo 2)
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif
# another seed, base or teacher is another run; with KNOWING=0 the base has not read what it is asked
R     = runs/$(PRESET)$(if $(filter-out 0,$(SEED)),-seed$(SEED))$(if $(filter 0,$(KNOWING)),-unknowing)$(if $(filter-out URL,$(TEACHER)),-$(MODEL))

# ---- where python comes from: a private .venv, or VENV=none for the one in use ------------------

ifeq ($(VENV),none)
python  = $(PYTHON)
install =
# with transformers and peft
beside  = $(PYTHON)
else
python  = $(VENV)/bin/python
install = $(VENV)/installed
beside  = $(VENV)-parity/bin/python
endif

# our own teacher and grader need no key, so none is passed on; a teacher elsewhere
# (make all TEACHER=https://... MODEL=...) gets the key, and the facts as its system message
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
.PHONY: help all hello smoke test show clean parity chaos bench-simulate coverage card real fetch llama-cpp bench-train big plan

help: ## this list
	@echo "PlatoLM from scratch: a user simulator, its dialogues, and the assistant they train"
	@echo
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /	/' | expand -t 16

ifeq ($(LARGE),)
all: hello $(R)/report.html ## the whole paradigm on two CPU cores, offline: 10 to 13 minutes
	@echo; $(python) -m data.experiment.next_questions --tell $(R)/questions.json
	@echo; echo "finished. Look at $(R)/report.html; the numbers are in $(R)/results.json,"
	@echo "the dialogues in $(R)/chat, the models beside it"
endif

plan: | $(install) ## what PRESET=7b (or 1b) would take (GPU=a100): every command, memory, hours, dollars; runs nothing
	@$(MAKE) -n --no-print-directory all PRESET=$(or $(LARGE),7b) | $(python) -m data.experiment.cost_plan $(or $(LARGE),7b) $(if $(GPU),--gpu $(GPU))

hello:
	@echo "$(PRESET): $($(PRESET)_TIME) on two cores; what is in $(R) already is not made again"
	@echo "the results will be tables here, and a page: $(R)/report.html"

smoke: ## the same, far smaller (does everything run?): about 1.5 minutes
	@$(MAKE) --no-print-directory all PRESET=smoke
	@echo "everything runs; so little training teaches nothing, and these numbers mean nothing"

test: $(install) $(and $(install),$(VENV)/installed-tests) ## all tests: about 5 minutes
	$(python) -m pytest -q tests

show: $(install) ## a dialogue as the two models see it, what is learnt and what is only read: at once
	$(python) platolm.py show data/example.jsonl

clean: ## delete what `make all` and `make smoke` made (not .venv, nothing fetched or paid for)
	rm -rf runs/tiny* runs/smoke* runs/machine.json

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

# how this machine computes fastest; asked once, while it is quiet
runs/machine.json: | $(install)
	$(python) -m data.machine

# ---- the paradigm, stage by stage: each is a file, and a file that is there is not made again ----

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

# what LLaMA is to the paper: it has read about the harbour, and people's dialogues as plain text
$(R)/base/model.safetensors: $(R)/corpus.jsonl $(R)/human.jsonl
	$(python) train.py --learn all --data $^ --out $(@D) --steps $(call size,BASE) --optimizer muon $(LEARN:3e-3=4e-3)

# the flip: learn what humans said; and the same for one who never hears an answer
$(R)/socratic/model.safetensors: $(R)/human.jsonl $(R)/base/model.safetensors | $(R)/held-out.jsonl
	$(python) train.py --learn human --data $< --held-out $(R)/held-out.jsonl --base $(R)/base --out $(@D) --steps $(call size,SOCRATIC) $(LEARN)

# (dialogues without answers are shorter: at 704 tokens an update both learn as many words)
$(R)/blind/model.safetensors: $(R)/human.jsonl $(R)/base/model.safetensors | $(R)/held-out.jsonl
	$(python) train.py --learn human --blind --data $< --held-out $(R)/held-out.jsonl --base $(R)/base --out $(@D) --steps $(call size,SOCRATIC) $(LEARN:1024=704)

# let the simulator talk to the teacher, over HTTP (an older user's journal goes, where it was free)
$(R)/chat/socratic.jsonl: $(R)/socratic/model.safetensors $(sheet)
	$(call free,$< $@.journal)
	$(with_teacher) $(python) simulate.py --user $(R)/socratic --teacher $(TEACHER) --model $(MODEL) $(sheet:%=--system %) --out $@ --dialogues $(call size,DIALOGUES) --seed $(SEED) $(SIMULATE)

$(R)/chat/blind.jsonl: $(R)/blind/model.safetensors $(sheet)
	$(call free,$< $@.journal)
	$(with_teacher) $(python) simulate.py --user $(R)/blind --blind --teacher $(TEACHER) --model $(MODEL) $(sheet:%=--system %) --out $@ --dialogues $(call size,DIALOGUES) --seed $(SEED) $(SIMULATE)

$(R)/sheet.txt: | $(R)
	$(python) -m data.harbour.world > $@

# what it is compared with: people, scripts, and people who ask about everything
$(R)/chat/human.jsonl: $(R)/human.jsonl
	mkdir -p $(@D) && head -n $(call size,DIALOGUES) $< > $@

$(R)/chat/self-chat.jsonl $(R)/chat/role-play.jsonl $(R)/chat/oracle.jsonl: $(R)/chat/%.jsonl: $(R)/human.jsonl
	$(python) -m data.experiment.talks $* --human $< --out $@ --dialogues $(call size,DIALOGUES) --seed $(SEED)

$(R)/chat/ceiling.jsonl: | $(R)
	$(python) -m data.experiment.talks people --out $@ --dialogues $(call size,DIALOGUES) --seed 2$(SEED) --facts all --prefix ceiling

# the assistants: learn what gpt said; socratic's is PlatoLM
$(R)/assistant/%/model.safetensors: $(R)/chat/%.jsonl $(R)/base/model.safetensors
	$(python) train.py --learn gpt --data $< --base $(R)/base --out $(@D) --steps $(call size,ASSISTANT) $(LEARN)

# what they are measured with; nobody learns from it
$(R)/held-out.jsonl: | $(R)
	$(python) -m data.experiment.talks people --out $@ --dialogues $(call size,HELD) --seed 1$(SEED) --prefix held-out

$(R)/held-out-all.jsonl: | $(R)
	$(python) -m data.experiment.talks people --out $@ --dialogues $(call size,HELD) --seed 3$(SEED) --facts all --prefix held-out-all

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
	$(python) -m data.experiment.probes $(TRAINED) --gold data/harbour/gold.jsonl --sentences $(R)/sentences.jsonl --out $@

JUDGED   = $(R)/bench/model_judgment/grader_single.jsonl

$(JUDGED): $(TAUGHT:%=$(R)/assistant/%/model.safetensors) $(BENCHES:%=%/question.jsonl)
	$(python) evaluate.py answer $(TRAINED) --bench $(BENCHES) --limit 48
	$(with_grader) $(python) evaluate.py judge $(ARMS) --bench $(BENCHES) --judge URL --judge-model grader

# PlatoLM against who stands for Vicuna, Baize and UltraLLaMA, in pairs
PAIRED   = $(R)/bench/model_judgment/grader_pair.jsonl

$(PAIRED): $(JUDGED)
	$(with_grader) $(python) evaluate.py judge human self-chat role-play --mode pairwise-baseline --baseline socratic --bench $(R)/bench --judge URL --judge-model grader

$(R)/results.json: $(JUDGED) $(PAIRED) $(R)/probes.json $(R)/listening.json $(R)/behaviour.json
	$(python) evaluate.py score $(ARMS) --bench $(R)/bench --judge-model grader --beside formal=$(R)/bench-formal vicuna=$(R)/bench-vicuna --probes $(R)/probes.json --seconds $(R)/seconds.jsonl --out $@

# does it listen?
$(R)/listening.json: $(R)/socratic/model.safetensors $(R)/blind/model.safetensors $(R)/held-out-all.jsonl
	$(python) -m data.experiment.listening expected $(R)/socratic --blind $(R)/blind --human $(R)/held-out-all.jsonl --out $@

USERS = human socratic blind self-chat role-play oracle ceiling

$(R)/behaviour.json: $(USERS:%=$(R)/chat/%.jsonl)
	$(python) -m data.experiment.listening did $(foreach user,$(USERS),$(user)=$(R)/chat/$(user).jsonl) --out $@

# how like people are users? the twin is the same base, trained on answers; told to be a user, it is the prompted one
$(R)/card.json: $(R)/socratic/model.safetensors $(R)/assistant/human/model.safetensors $(R)/chat/socratic.jsonl $(R)/chat/self-chat.jsonl $(R)/held-out.jsonl
	env -u OPENAI_API_KEY $(python) -m data.api.serve_checkpoint $(R)/assistant/human -- $(python) evaluate.py card --user $(R)/socratic --human $(R)/held-out.jsonl --twin $(R)/assistant/human --beside base=$(R)/base --teacher URL --model model --simulated user=$(R)/chat/socratic.jsonl self-chat=$(R)/chat/self-chat.jsonl --out $@

$(R)/stats.json: $(USERS:%=$(R)/chat/%.jsonl) $(R)/held-out.jsonl $(R)/bench/question.jsonl $(R)/base/model.safetensors
	$(python) evaluate.py stats $(USERS:%=$(R)/chat/%.jsonl) --tokenizer $(R)/base --human $(R)/held-out.jsonl --bench $(R)/bench/question.jsonl --out $@

$(R)/questions.json: $(R)/socratic/model.safetensors $(R)/held-out.jsonl
	$(python) -m data.experiment.next_questions --user $(R)/socratic --human $(R)/held-out.jsonl --out $@

$(R)/report.html: $(R)/results.json $(R)/questions.json $(R)/card.json $(R)/stats.json
	$(python) -m data.experiment.report $(R) --out $@

# side by side, a thread each; the base, for which all else waits, has all cores
$(R)/report.html: export OMP_NUM_THREADS = 1
$(R)/base/model.safetensors: export OMP_NUM_THREADS = $(JOBS)

endif

# ---- simulation that can be trusted, and how fast it is ------------------------------------------

card: $(R)/card.json ## how like people is the simulator? part of make all: 1 minute after it

chaos: $(install) $(and $(install),$(VENV)/installed-tests) ## 200 dialogues through every fault, killed with -9 five times: 1 minute
	$(python) -m tests.programs.drill

bench-simulate: export OMP_NUM_THREADS = 1
bench-simulate: $(R)/socratic/model.safetensors ## turns per second against what bounds them: 4 minutes, after make all
	$(python) -m tests.programs.bench_simulate $(R)

coverage: $(install) ## how often a 95 % interval holds the truth, and where it falls short: 15 seconds
	$(python) -m tests.programs.coverage

# ---- the same on real people: a small model from scratch, on dialogues of yours ------------------

# make real DATA=dialogues.json WHERE=source=taskmaster4
REAL_DATA  = $(firstword $(DATA))
# named by the file and by what was chosen of it (an empty name and a space: without spaces)
REAL       = runs/real-$(basename $(notdir $(REAL_DATA)))$(subst $() ,,$(addprefix -,$(subst =,-,$(WHERE))))
REAL_SHAPE = --vocab 2048 --dim 192 --layers 6 --heads 6 --hidden 512 --context 1024
REAL_LEARN = --held-out $(REAL)/held-out.jsonl --tokens 2048 --resume --seed $(SEED)

learn_socratic  = human
learn_assistant = gpt
learn_continued = all

real: $(REAL)/card.json ## Socratic from scratch on people's dialogues (DATA=FILE), and its card: 8 minutes

$(REAL)/human.jsonl: $(wildcard $(REAL_DATA)) | $(install) runs/machine.json
	@test -n "$(DATA)" || { echo "make real DATA=FILE: which dialogues? (any format that data/formats/dialogues.py knows)"; exit 1; }
	mkdir -p $(@D) && $(python) -m data.formats.files $(REAL_DATA) $(addprefix --where ,$(WHERE)) --out $@ --held-out $(REAL)/held-out.jsonl

$(REAL)/base/model.safetensors: $(REAL)/human.jsonl
	$(python) train.py --learn all --data $< --out $(@D) $(REAL_SHAPE) --steps 400 --optimizer muon --lr 4e-3 $(REAL_LEARN)

# from that base, for as many updates each: who asks, who answers, and one who goes on reading both
$(REAL)/socratic/model.safetensors $(REAL)/assistant/model.safetensors $(REAL)/continued/model.safetensors: $(REAL)/%/model.safetensors: $(REAL)/human.jsonl $(REAL)/base/model.safetensors
	$(python) train.py --learn $(learn_$*) --data $< --base $(REAL)/base --out $(@D) --steps 150 --lr 1e-3 $(REAL_LEARN)

$(REAL)/card.json: $(REAL)/socratic/model.safetensors $(REAL)/assistant/model.safetensors $(REAL)/continued/model.safetensors
	env -u OPENAI_API_KEY $(python) -m data.api.serve_checkpoint $(REAL)/assistant -- $(python) evaluate.py card --user $(REAL)/socratic --human $(REAL)/held-out.jsonl --twin $(REAL)/assistant --beside base=$(REAL)/base continued=$(REAL)/continued --teacher URL --model model --out $@

$(REAL)/%/model.safetensors: export OMP_NUM_THREADS = 1
$(REAL)/base/model.safetensors: export OMP_NUM_THREADS = $(JOBS)

# ---- beside others' programs, in environments of their own ----------------------------------------

parity: $(if $(install),$(VENV)-parity/installed) ## logits and ids against transformers and peft (DATA=dialogues.json: more text): 1 minute
	$(beside) -m tests.programs.parity $(DATA)

$(VENV)-parity/installed: tests/parity-requirements.txt requirements.txt
	@echo "installing transformers, peft and what they need into $(VENV)-parity: a further download of 0.1 GB"
	$(PYTHON) -m venv $(VENV)-parity
	$(VENV)-parity/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r $<
	@touch $@

big: $(install) ## a file of 1 GB through the importer, in little memory: 1 minute
	$(python) -m tests.programs.big

bench-train: $(if $(install),$(VENV)-parity/installed) ## a training step against what the machine can multiply, and transformers + peft: on a GPU 7B's shape
	$(beside) -m tests.programs.bench_train $(if $(COMPILE),--compile)

llama-cpp: $(VENV)-llama/installed $(R)/socratic/model.safetensors $(R)/held-out.jsonl ## does llama.cpp open our Socratic? 10 minutes (it is compiled), after make all
	$(VENV)-llama/bin/python -m tests.programs.llama_cpp $(R)/socratic $(VENV)-llama/sources/vendor/llama.cpp $(R)/held-out.jsonl

# its sources, for the converter and LLaMA's vocabulary that lie in them, and from them the package
$(VENV)-llama/installed: tests/llama-requirements.txt tests/parity-requirements.txt requirements.txt
	@echo "installing llama.cpp and what its converter needs into $(VENV)-llama: it is compiled, which takes some minutes"
	$(PYTHON) -m venv $(VENV)-llama
	$(VENV)-llama/bin/python -m pip download --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --no-binary llama-cpp-python -d $(VENV)-llama -r tests/llama-requirements.txt
	mkdir -p $(VENV)-llama/sources && tar -xzf $(VENV)-llama/llama_cpp_python-*.tar.gz -C $(VENV)-llama/sources --strip-components=1
	$(VENV)-llama/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r tests/parity-requirements.txt $(VENV)-llama/llama_cpp_python-*.tar.gz
	@touch $@

# ---- from outside ----------------------------------------------------------------------------------

fetch: $(install) ## a public checkpoint (BASE=owner/model) or data set (DATA=owner/set) from the Hugging Face hub
	@test -n "$(BASE)$(DATA)" || { echo "make fetch BASE=owner/model, or DATA=owner/set: which?"; exit 1; }
	$(if $(BASE),$(python) -m data.formats.fetch $(BASE) --out runs/fetched/$(notdir $(BASE)))
	$(if $(DATA),$(python) -m data.formats.fetch "$(DATA)" $(if $(findstring ://,$(DATA)),,--dataset) --out runs/fetched/$(notdir $(firstword $(subst ?, ,$(DATA)))))
