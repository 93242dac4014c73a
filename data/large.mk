# The paper's own job on your weights and dialogues; the Makefile includes this for PRESET=1b and 7b.
#
#     make plan PRESET=7b                                            what it would take; runs nothing
#     make all PRESET=7b BASE=llama-7b DATA=sharegpt.json BENCH=mt_bench DOLLARS=100
#
# BASE     a Hugging Face directory (data/formats/convert.py makes one from other formats)
# DATA     raw ShareGPT, one file or several
# BENCH    a directory with MT-Bench's question.jsonl
# DOLLARS  the cap for the teacher; the judge's ratings have the same cap again, and so have its pairs
# SIMULATE, JUDGING  further flags for simulate.py and for evaluate.py judge
#
# The API key is read from OPENAI_API_KEY. A stage whose file exists does not run again. A variable that is not
# set holds its own name, so that a plan can be printed without it.

BASE     ?= BASE
DATA     ?= DATA
BENCH    ?= BENCH
DOLLARS  ?= DOLLARS

# the number of GPUs, and how many dialogues at a time fit in their memory
1b_GPUS   = 1
7b_GPUS   = 4
1b_TALKS  = 64
7b_TALKS  = 48
GPUS     ?= $($(PRESET)_GPUS)
ifneq ($(shell test "$(GPUS)" -ge 1 2>&1 && echo yes),yes)
$(error GPUS=$(GPUS): how many?)
endif
launch    = $(python) $(if $(filter-out 1,$(GPUS)),-m torch.distributed.run --standalone --nproc_per_node $(GPUS))

DIALOGUES ?= 10000
JUDGE     ?= gpt-4
JUDGE_AT  ?= https://api.openai.com/v1
EVERY     = q_proj k_proj v_proj o_proj gate_proj up_proj down_proj

# three epochs, 128 dialogues an update, as in the authors' scripts
PAPER_WAY = --epochs 3 --samples 128 --weight-decay 0 --precision bf16 --attention fused \
            --activation-checkpointing --resume --seed $(SEED)

# TinyLlama-1.1B on one GPU of 24 GB: LoRA on every matrix
1b_TRAIN  = $(launch) train.py --lora 16 --lora-alpha 32 --lora-names $(EVERY) --weights bf16 \
            --lr 2e-4 --tokens 8192

# LLaMA-7B as in the paper: all weights, in float32, sharded over four GPUs of 80 GB (on one GPU, in bf16)
7b_TRAIN  = $(launch) train.py $(if $(filter 1,$(GPUS)),--weights bf16,--shard) --lr 2e-5 --tokens 8192

all: $(R)/card.json $(R)/results.json
	@echo; echo "finished: the scores are in $(R)/results.json, the dialogues in $(R)/chat, the models beside it"

# checks before anything is computed or bought
.PHONY: needed
needed:
	@test -e "$(BASE)/config.json" || { \
	    echo "BASE=$(BASE): no checkpoint is there (see data/large.mk, and make plan PRESET=$(PRESET))"; exit 1; }
	@for file in $(DATA); do \
	    test -e "$$file" || { echo "DATA=$(DATA): no dialogues are there"; exit 1; }; done
	@test -e "$(BENCH)/question.jsonl" || { \
	    echo "BENCH=$(BENCH): no question.jsonl is there (MT-Bench's comes with FastChat)"; exit 1; }
	@case "$(DOLLARS)" in *[!0-9.]*) \
	    echo "DOLLARS=$(DOLLARS): how much may it cost?"; exit 1;; esac
	@case "$(TEACHER) $(JUDGE_AT)" in *//127.0.0.1*//127.0.0.1*) ;; \
	    *) test -n "$$OPENAI_API_KEY" || { echo "OPENAI_API_KEY is not set"; exit 1; };; esac

# stages run one after another, each with all GPUs
.NOTPARALLEL:

# the paper's cleaning (Markdown, blocked words, language, segments, duplicates); one in a hundred is held out
$(R)/human.jsonl: $(wildcard $(DATA)) | needed $(install) runs/machine.json
	mkdir -p $(R)/chat && \
	    $(python) -m data.formats.clean $(DATA) --paper --tokenizer $(BASE) --out $(R)/clean.jsonl
	$(python) -m data.formats.files $(R)/clean.jsonl --out $@ --held-out $(R)/held-out.jsonl --share 100

$(R)/socratic/model.safetensors: $(R)/human.jsonl
	$($(PRESET)_TRAIN) --learn human --data $< --held-out $(R)/held-out.jsonl --base $(BASE) \
	    --out $(@D) $(PAPER_WAY)

$(R)/chat/raw.jsonl: $(R)/socratic/model.safetensors
	$(python) simulate.py --user $(R)/socratic --teacher $(TEACHER) --model $(MODEL) --out $@ \
	    --dialogues $(DIALOGUES) --max-question 512 --in-flight $($(PRESET)_TALKS) \
	    --max-dollars $(DOLLARS) --seed $(SEED) $(SIMULATE)

$(R)/chat/socratic.jsonl: $(R)/chat/raw.jsonl
	$(python) -m data.formats.clean $< --out $@ --bench $(BENCH)/question.jsonl

# the arm human: first segments of people's dialogues, as many as simulated dialogues passed the cleaning
$(R)/chat/human.jsonl: $(R)/human.jsonl $(R)/chat/socratic.jsonl
	$(python) -m data.formats.sampling --like vicuna $< --number $$(wc -l < $(R)/chat/socratic.jsonl) --out $@

$(R)/assistant/%/model.safetensors: $(R)/chat/%.jsonl
	$($(PRESET)_TRAIN) --learn gpt --data $< --base $(BASE) --out $(@D) $(PAPER_WAY)

$(R)/card.json: $(R)/socratic/model.safetensors $(R)/assistant/human/model.safetensors $(R)/chat/raw.jsonl
	$(python) evaluate.py card --user $(R)/socratic --human $(R)/held-out.jsonl \
	    --twin $(R)/assistant/human --beside base=$(BASE) --simulated user=$(R)/chat/raw.jsonl --out $@

$(R)/results.json: $(R)/assistant/socratic/model.safetensors $(R)/assistant/human/model.safetensors
	mkdir -p $(R)/bench && cp -r $(BENCH)/. $(R)/bench
	$(python) evaluate.py answer socratic=$(R)/assistant/socratic human=$(R)/assistant/human --bench $(R)/bench
	$(python) evaluate.py judge socratic human --bench $(R)/bench --judge $(JUDGE_AT) --judge-model $(JUDGE) \
	    --max-dollars $(DOLLARS) $(JUDGING)
	$(python) evaluate.py judge socratic human --mode pairwise-all --bench $(R)/bench \
	    --judge $(JUDGE_AT) --judge-model $(JUDGE) --max-dollars $(DOLLARS) $(JUDGING)
	$(python) evaluate.py score socratic human --bench $(R)/bench --judge-model $(JUDGE) \
	    --against socratic --out $@
