# The programs of tests/programs: fault drill, benches, and comparisons with other programs.
# transformers, peft and llama.cpp are installed into environments of their own, beside .venv.

ifeq ($(VENV),none)
parity_python = $(PYTHON)
else
parity_python = $(VENV)-parity/bin/python
endif
llama_python  = $(VENV)-llama/bin/python
pip_install   = -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS)

.PHONY: chaos data-loss coverage big bench-simulate bench-train parity llama-cpp

chaos: $(install) $(and $(install),$(VENV)/installed-tests)
chaos: ## 200 dialogues through a faulty server, killed with -9 five times: 1 minute
	$(python) -m tests.programs.drill

data-loss: $(install) $(and $(install),$(VENV)/installed-tests)
data-loss: ## is anything old ever lost? outputs upon inputs, kills, a full disk (SMALL=disk of 1 MB): 1 minute
	$(python) -m tests.programs.data_loss $(SMALL)

coverage: $(install) ## how often a 95 % interval holds the true value: 15 seconds
	$(python) -m tests.programs.coverage

big: $(install) ## read a file of 1 GB in little memory: 1 minute
	$(python) -m tests.programs.big

bench-simulate: export OMP_NUM_THREADS = 1
bench-simulate: $(R)/socratic/model.safetensors ## turns a second, beside their upper bound: 4 minutes, after make all
	$(python) -m tests.programs.bench_simulate $(R)

bench-train: $(if $(install),$(VENV)-parity/installed)
bench-train: ## a training step beside transformers + peft, and the machine's peak; on a GPU at 7B's shape
	$(parity_python) -m tests.programs.bench_train $(if $(COMPILE),--compile)

parity: $(if $(install),$(VENV)-parity/installed)
parity: ## compare logits and ids with transformers and peft (DATA=dialogues.json: more text): 1 minute
	$(parity_python) -m tests.programs.parity $(DATA)

llama-cpp: $(VENV)-llama/installed $(R)/socratic/model.safetensors $(R)/held-out.jsonl
llama-cpp: ## compare with llama.cpp, which reads our Socratic: 10 minutes (it is compiled), after make all
	$(llama_python) -m tests.programs.llama_cpp $(R)/socratic $(VENV)-llama/sources/vendor/llama.cpp \
	    $(R)/held-out.jsonl

$(VENV)-parity/installed: tests/parity-requirements.txt requirements.txt
	@echo "installing transformers, peft and what they need into $(VENV)-parity: a further download of 0.1 GB"
	$(PYTHON) -m venv $(VENV)-parity
	$(VENV)-parity/bin/python $(pip_install) -r $<
	@touch $@

# the sources hold the converter and LLaMA's vocabulary; the package is built from them
$(VENV)-llama/installed: tests/llama-requirements.txt tests/parity-requirements.txt requirements.txt
	@echo "installing llama.cpp and what its converter needs into $(VENV)-llama: compiling takes some minutes"
	$(PYTHON) -m venv $(VENV)-llama
	$(llama_python) -m pip download --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps \
	    --no-binary llama-cpp-python -d $(VENV)-llama -r tests/llama-requirements.txt
	mkdir -p $(VENV)-llama/sources \
	    && tar -xzf $(VENV)-llama/llama_cpp_python-*.tar.gz -C $(VENV)-llama/sources --strip-components=1
	$(llama_python) $(pip_install) -r tests/parity-requirements.txt $(VENV)-llama/llama_cpp_python-*.tar.gz
	@touch $@
