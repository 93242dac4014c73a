# PlatoLM from scratch. `make` lists the targets; `make -n all` prints every command of the experiment.
#
# data/large.mk: the paper's own job (PRESET=7b or 1b). data/real.mk: a small model on your dialogues.
# data/checks.mk: benches, and comparisons with other programs.

PRESET  ?= tiny
SEED    ?= 0
SEEDS   ?= 3
PYTHON  ?= python3
VENV    ?= .venv
$(if $(filter tiny smoke 1b 7b,$(PRESET)),,$(error PRESET=$(PRESET): known are tiny, smoke, 1b and 7b))
# the large presets use a real teacher by default, the small ones our own
LARGE   := $(filter 1b 7b,$(PRESET))
TEACHER ?= $(if $(LARGE),https://api.openai.com/v1,URL)
MODEL   ?= $(if $(LARGE),gpt-3.5-turbo,teacher)

# ---- presets: one row of sizes each ------------------------------------------------------------

#                 base: texts, steps    dialogues of an arm    steps: users, assistants    questions, held-out people
tiny_SIZES     = TEXTS=80000 BASE=2000  DIALOGUES=2400         USERS=800 ASSISTANT=1200    QUESTIONS=20 HELD=400
smoke_SIZES    = TEXTS=2000 BASE=60     DIALOGUES=120          USERS=30 ASSISTANT=20       QUESTIONS=2 HELD=24
tiny_TIME      = 12 to 25 minutes
smoke_TIME     = about 2 minutes
size = $(patsubst $(1)=%,%,$(filter $(1)=%,$($(PRESET)_SIZES)))

# the learning rate was chosen on the arm `today` alone
LEARN = --optimizer muon --lr 6e-3 --tokens 1024 --seed $(SEED) --resume
# run as many stages in parallel as there are cores, one thread each
JOBS      ?= $(shell getconf _NPROCESSORS_ONLN || echo 2)
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(JOBS)
endif

# ---- the arms, and what can be changed in the experiment (data/harbour/README.md) ---------------

# socratic's assistant is PlatoLM; floor is the base without fine-tuning. `make seeds` has all arms
ARMS   ?= today socratic heard-replay self-chat role-play replay human blind
# USER=people: people's own program in Socratic's place. HEARING=0.5: an answer reaches Socratic so often;
# SWAP=1: another dialogue's answers reach him
# the shell has a USER, too
ifneq ($(origin USER),command line)
USER    := socratic
endif
HEARING ?= 1
SWAP    ?= 0
# of the town and its logs: GROWTH=0, nothing is ever new; FOLLOW=0, people never ask about what is named;
# SEASONS=1, logs of one past season
GROWTH  ?= 1
FOLLOW  ?= 0.6
SEASONS ?= 24
# the base is one for each seed; D: what is as usual; L: with these logs; R: with this user and teacher
other = $(if $(filter-out $(2),$($(1))),-$(3)$($(1)))
D = runs/$(PRESET)$(if $(filter-out 0,$(SEED)),-seed$(SEED))
L = $(D)$(call other,GROWTH,1,growth)$(call other,FOLLOW,0.6,follow)$(call other,SEASONS,24,seasons)
R = $(L)$(call other,USER,socratic)$(call other,HEARING,1,hearing)$(call other,SWAP,0,swap)$(if \
    $(LARGE)$(filter URL,$(TEACHER)),,-by-$(MODEL))
town = --seed $(SEED) --growth $(GROWTH)

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
forget = @test $(word 1,$(1)) -ot $(word 2,$(1)) || rm -f $(word 2,$(1))
ifeq ($(TEACHER),URL)
unexport OPENAI_API_KEY OPENAI_BASE_URL
with_teacher = $(python) -m data.harbour.teacher $(town) --
free = $(forget)
else
sheet = $(R)/sheet.txt
endif
with_grader = env -u OPENAI_API_KEY $(python) -m data.harbour.grader $(town) --

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: help all hello gates controls seeds where smoke test show clean card fetch plan

help: ## print this list
	@echo "PlatoLM from scratch: a user simulator, its dialogues, and the assistant they train"
	@echo
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /	/' | expand -t 16

ifeq ($(LARGE),)
all: hello $(R)/report.html ## the whole experiment, offline, on two CPU cores: 12 to 25 minutes
	@echo; $(python) -m data.experiment.report $(R) --tell
	@echo; echo "finished. Look at $(R)/report.html; the dialogues are in $(R)/chat, the models beside it"

gates: $(R)/gates.json ## can the experiment answer at all? (part of make all)

controls: $(install) ## three runs whose outcome is known: nothing new, people as simulator, no following
	$(python) -m data.experiment.cells controls --preset $(PRESET)

seeds: $(install) ## all arms with SEEDS=3 seeds, and the paired differences: 15 to 25 minutes a seed
	$(python) -m data.experiment.cells seeds --seeds $(SEEDS) --preset $(PRESET)

# where the results of these variables are
where:
	@echo $(R)
endif

plan: | $(install) ## commands, memory, hours and dollars of PRESET=7b or 1b (GPU=a100); runs nothing
	@$(MAKE) -n --no-print-directory all PRESET=$(or $(LARGE),7b) \
	    | $(python) -m data.experiment.cost_plan $(or $(LARGE),7b) $(if $(GPU),--gpu $(GPU))

hello:
	@echo "$(PRESET): $($(PRESET)_TIME) on two cores; stages already in $(R) are not run again"
	@echo "the results will be tables here, and a page: $(R)/report.html"

smoke: ## the same, far smaller, to see that everything runs: about 2 minutes
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
# (it is no stage of a run)
runs/machine.json: export STAGE_SECONDS =
runs/machine.json: | $(install)
	$(python) -m data.machine

# ---- the experiment, stage by stage: each writes a file, and a file that exists is not made again

ifneq ($(LARGE),)
include data/large.mk
else

# every stage notes its seconds beside its results
$(D)/%: export STAGE_SECONDS = $(D)/seconds.jsonl
$(L)/%: export STAGE_SECONDS = $(L)/seconds.jsonl
$(R)/%: export STAGE_SECONDS = $(R)/seconds.jsonl

$(sort $(D) $(L) $(R)): | runs/machine.json
	mkdir -p $@/chat

# the base model (LLaMA in the paper) has read lists, ledgers and sums of invented places
$(D)/corpus.jsonl: | $(D)
	$(python) -m data.harbour.corpus --out $@ --texts $(call size,TEXTS) --seed $(SEED)

$(D)/base/model.safetensors: $(D)/corpus.jsonl
	$(python) train.py --learn all --data $< --out $(@D) --steps $(call size,BASE) \
	    $(LEARN:6e-3=3e-3)

# dialogues of people: the logs of past seasons; today's, for the ceiling and for the tests
$(L)/chat/human.jsonl: | $(L)
	$(python) -m data.experiment.talks logs --out $@ --dialogues $(call size,DIALOGUES) $(town) \
	    --follow $(FOLLOW) --seasons $(SEASONS)

$(L)/chat/today.jsonl: | $(L)
	$(python) -m data.experiment.talks today --out $@ --dialogues $(call size,DIALOGUES) $(town) \
	    --follow $(FOLLOW)

$(L)/held-out.jsonl: | $(L)
	$(python) -m data.experiment.talks today --out $@ --dialogues $(call size,HELD) $(town) \
	    --follow $(FOLLOW) --draw held-out

# the user simulators, trained on the human turns of the logs; `blind` never sees an answer
$(L)/socratic/model.safetensors: $(L)/chat/human.jsonl $(D)/base/model.safetensors | $(L)/held-out.jsonl
	$(python) train.py --learn human --data $< --held-out $(L)/held-out.jsonl --base $(D)/base \
	    --out $(@D) --steps $(call size,USERS) $(LEARN)

$(L)/blind/model.safetensors: $(L)/chat/human.jsonl $(D)/base/model.safetensors | $(L)/held-out.jsonl
	$(python) train.py --learn human --blind --data $< --held-out $(L)/held-out.jsonl --base $(D)/base \
	    --out $(@D) --steps $(call size,USERS) $(LEARN)

# the simulator talks to today's guide over HTTP (a journal of an older one is deleted if it cost nothing)
speak    = simulate.py --dialogues $(call size,DIALOGUES) --seed $(SEED)
with_our = env -u OPENAI_API_KEY $(python) -m data.harbour.teacher $(town) -- $(python)

# (the deaf one always talks to our own guide)
$(L)/chat/blind.jsonl: $(L)/blind/model.safetensors
	$(call forget,$< $@.journal)
	$(with_our) $(speak) --user $(L)/blind --blind --teacher URL --model teacher --out $@

ifeq ($(USER),people)
$(R)/chat/socratic.jsonl: | $(R)
	$(python) -m data.experiment.talks today --out $@ --dialogues $(call size,DIALOGUES) $(town) --draw people
else ifneq ($(HEARING)$(SWAP),10)
$(R)/chat/socratic.jsonl: $(L)/socratic/model.safetensors $(L)/chat/today.jsonl | $(R)
	$(python) -m data.experiment.hearing $(L)/socratic --out $@ --dialogues $(call size,DIALOGUES) $(town) \
	    --hearing $(HEARING) $(if $(filter 1,$(SWAP)),--swap $(L)/chat/today.jsonl)
else
$(R)/chat/socratic.jsonl: $(L)/socratic/model.safetensors $(sheet) | $(R)
	$(call free,$< $@.journal)
	$(with_teacher) $(python) $(speak) --user $(L)/socratic --teacher $(TEACHER) --model $(MODEL) \
	    $(sheet:%=--system %) --out $@ $(SIMULATE)
endif

$(R)/sheet.txt: | $(R)
	$(python) -m data.harbour.world $(town) > $@

# users that are rules: the dialogues of the logs again, scripts, people who know the whole catalogue
RULES = replay replay-open heard-replay self-chat role-play oracle

$(RULES:%=$(L)/chat/%.jsonl): $(L)/chat/%.jsonl: $(L)/chat/human.jsonl
	$(python) -m data.experiment.talks $* --logs $< --out $@ --dialogues $(call size,DIALOGUES) $(town)

# the assistants, trained on the assistant's turns of each set; socratic's is PlatoLM
home     = $(if $(filter socratic,$(1)),$(R),$(L))
chat     = $(call home,$(1))/chat/$(1).jsonl
assist   = $(call home,$(1))/assistant/$(1)
define assistants_in
$(1)/assistant/%/model.safetensors: $(1)/chat/%.jsonl $(D)/base/model.safetensors
	$(python) train.py --learn gpt --data $$< --base $(D)/base --out $$(@D) \
	    --steps $(call size,ASSISTANT) $(LEARN)
endef
$(foreach dir,$(sort $(L) $(R)),$(eval $(call assistants_in,$(dir))))

MODELS   = $(foreach arm,$(ARMS),$(call assist,$(arm))/model.safetensors)
TRAINED  = $(foreach arm,$(ARMS),$(arm)=$(call assist,$(arm))) floor=$(D)/base
CHATS    = $(foreach arm,$(ARMS),$(call chat,$(arm)))

# before any comparison: is the experiment able to answer?
$(R)/gates.json: $(MODELS) $(L)/assistant/today/model.safetensors $(L)/held-out.jsonl | $(R)
	$(python) -m data.experiment.gates --base $(D)/base --today $(L)/assistant/today \
	    --human $(L)/held-out.jsonl --logs $(MODELS:%/model.safetensors=%/log.jsonl) $(town) --out $@

# what each assistant answers to today's people, and what each user was told
$(R)/probes.json: $(MODELS) $(L)/held-out.jsonl | $(R)
	$(python) -m data.experiment.probes $(TRAINED) --human $(L)/held-out.jsonl $(town) --out $@ \
	    $(if $(filter smoke,$(PRESET)),--gold /dev/null)

$(R)/contrasts.json: $(R)/probes.json | $(R)/gates.json
	$(python) -m data.experiment.contrasts $< --out $@

$(R)/reach.json: $(CHATS) | $(R)
	$(python) -m data.experiment.reach $(foreach arm,$(ARMS),$(arm)=$(call chat,$(arm))) $(town) --out $@

# the benches: answered, and judged by the grader over HTTP
BENCHES  = $(R)/bench $(R)/bench-vicuna

$(R)/bench/question.jsonl: | $(R)
	$(python) -m data.harbour.bench --out $@ --questions $(call size,QUESTIONS) $(town)

$(R)/bench-vicuna/question.jsonl: | $(R)
	$(python) -m data.harbour.bench --vicuna --out $@ --questions $(call size,QUESTIONS) $(town)

JUDGED   = $(R)/bench/model_judgment/grader_single.jsonl

$(JUDGED): $(MODELS) $(BENCHES:%=%/question.jsonl)
	$(python) evaluate.py answer $(TRAINED) --bench $(BENCHES) --limit 48
	$(with_grader) $(python) evaluate.py judge $(ARMS) floor --bench $(BENCHES) \
	    --judge URL --judge-model grader

# PlatoLM in pairs against the other ways to come by dialogues
PAIRED   = $(R)/bench/model_judgment/grader_pair.jsonl

$(PAIRED): $(JUDGED)
	$(with_grader) $(python) evaluate.py judge $(filter human self-chat role-play,$(ARMS)) \
	    --mode pairwise-baseline --baseline socratic --bench $(R)/bench --judge URL --judge-model grader

$(R)/results.json: $(JUDGED) $(PAIRED)
	$(python) evaluate.py score $(ARMS) floor --bench $(R)/bench --judge-model grader \
	    --beside vicuna=$(R)/bench-vicuna --out $@

# the simulator's card. The twin is the base trained on answers; served and told to play the user, it
# is the prompted one
$(R)/card.json: $(L)/socratic/model.safetensors $(L)/assistant/human/model.safetensors \
                $(R)/chat/socratic.jsonl $(L)/chat/self-chat.jsonl $(L)/held-out.jsonl
	env -u OPENAI_API_KEY $(python) -m data.api.serve_checkpoint $(L)/assistant/human -- \
	    $(python) evaluate.py card --user $(L)/socratic --human $(L)/held-out.jsonl \
	    --twin $(L)/assistant/human --beside base=$(D)/base --teacher URL --model model \
	    --simulated user=$(R)/chat/socratic.jsonl self-chat=$(L)/chat/self-chat.jsonl --out $@

$(R)/stats.json: $(CHATS) $(L)/held-out.jsonl $(R)/bench/question.jsonl $(D)/base/model.safetensors
	$(python) evaluate.py stats $(CHATS) --tokenizer $(D)/base \
	    --human $(L)/held-out.jsonl --bench $(R)/bench/question.jsonl --out $@

$(R)/questions.json: $(L)/socratic/model.safetensors $(L)/held-out.jsonl | $(R)
	$(python) -m data.experiment.next_questions --user $(L)/socratic --human $(L)/held-out.jsonl $(town) \
	    --out $@

$(R)/report.html: $(addprefix $(R)/,gates.json contrasts.json reach.json results.json questions.json \
                  card.json stats.json)
	$(python) -m data.experiment.report $(R) $(town) --out $@

# stages run in parallel as there are cores, one thread each
$(D)/% $(L)/% $(R)/%: export OMP_NUM_THREADS = 1

endif

# ---- parts of it alone, and what comes from elsewhere ---------------------------------------------

card: $(R)/card.json ## the card of the simulator (part of make all): 1 minute after it

fetch: $(if $(BASE)$(DATA),$(install))
fetch: ## download a checkpoint (BASE=owner/model) or data set (DATA=owner/set) from the Hugging Face hub
	@test -n "$(BASE)$(DATA)" || { echo "make fetch BASE=owner/model, or DATA=owner/set: which?"; exit 1; }
	$(if $(BASE),$(python) -m data.formats.fetch $(BASE) --out runs/fetched/$(notdir $(BASE)))
	$(if $(DATA),$(python) -m data.formats.fetch "$(DATA)" $(if $(findstring ://,$(DATA)),,--dataset) \
	    --out runs/fetched/$(notdir $(firstword $(subst ?, ,$(DATA)))))

include data/real.mk data/checks.mk tests/exercises/exercises.mk
