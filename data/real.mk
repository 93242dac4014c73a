# The same on real people: a small model trained from scratch on dialogues of yours, and its card.
#
#     make real DATA=dialogues.json
#     make real DATA=dialogues.json WHERE=source=taskmaster4        only the dialogues with this field

REAL_DATA  = $(firstword $(DATA))
# the directory is named after the file and the choice made with WHERE, without spaces
no_spaces  = $(subst $() ,,$(1))
REAL       = runs/real-$(basename $(notdir $(REAL_DATA)))$(call no_spaces,$(addprefix -,$(subst =,-,$(WHERE))))
REAL_SHAPE = --vocab 2048 --dim 192 --layers 6 --heads 6 --hidden 512 --context 1024
REAL_LEARN = --held-out $(REAL)/held-out.jsonl --tokens 2048 --resume --seed $(SEED)

# three models from one base: the user, the assistant, and one that trains on both for as long
REAL_USERS      = socratic assistant continued
learn_socratic  = human
learn_assistant = gpt
learn_continued = all

.PHONY: real
real: $(REAL)/card.json ## train Socratic from scratch on your dialogues (DATA=FILE), and print its card: 8 minutes

# without DATA nothing is installed either
$(REAL)/human.jsonl: $(wildcard $(REAL_DATA)) | $(if $(DATA),$(install) runs/machine.json)
	@test -n "$(DATA)" || { \
	    echo "make real DATA=FILE: which dialogues? (any format that data/formats/dialogues.py knows)"; exit 1; }
	mkdir -p $(@D) && $(python) -m data.formats.files $(REAL_DATA) $(addprefix --where ,$(WHERE)) \
	    --out $@ --held-out $(REAL)/held-out.jsonl

$(REAL)/base/model.safetensors: $(REAL)/human.jsonl
	$(python) train.py --learn all --data $< --out $(@D) $(REAL_SHAPE) \
	    --steps 400 --optimizer muon --lr 4e-3 $(REAL_LEARN)

$(REAL_USERS:%=$(REAL)/%/model.safetensors): $(REAL)/%/model.safetensors: \
                $(REAL)/human.jsonl $(REAL)/base/model.safetensors
	$(python) train.py --learn $(learn_$*) --data $< --base $(REAL)/base --out $(@D) \
	    --steps 150 --lr 1e-3 $(REAL_LEARN)

$(REAL)/card.json: $(REAL_USERS:%=$(REAL)/%/model.safetensors)
	env -u OPENAI_API_KEY $(python) -m data.api.serve_checkpoint $(REAL)/assistant -- \
	    $(python) evaluate.py card --user $(REAL)/socratic --human $(REAL)/held-out.jsonl \
	    --twin $(REAL)/assistant --beside base=$(REAL)/base continued=$(REAL)/continued \
	    --teacher URL --model model --out $@

$(REAL)/%/model.safetensors: export OMP_NUM_THREADS = 1
$(REAL)/base/model.safetensors: export OMP_NUM_THREADS = $(JOBS)
