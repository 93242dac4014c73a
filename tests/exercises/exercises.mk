# Exercises: TEACHING.md is for teachers, tests/exercises/exercises.py does the work.

exercising = $(python) -m tests.exercises.exercises
tools      = $(install) $(and $(install),$(VENV)/installed-tests)

.PHONY: exercises exercise check hint diff hunt verify

exercises: ## list the exercises: which, where, how long, solved or not; how to begin
	@$(PYTHON) -m tests.exercises.exercises list

exercise: $(tools) ## begin one: N=6 (AGAIN=1 moves an old copy aside); then make check, hint, diff N=6
	@$(exercising) start $(N) $(if $(AGAIN),--again)

check: $(tools) ## test your answer to an exercise: N=6; all of them: N=all
	@$(exercising) check $(N)

hint: $(tools)
	@$(exercising) hint $(N)

diff: $(tools)
	@$(exercising) diff $(N) $(if $(SHOW),--show)

hunt: $(tools) ## do your own tests catch wrong answers? N=6 TESTS=my_tests.py (SHOW=1 names what they miss)
	@$(exercising) hunt $(N) $(if $(TESTS),--tests $(TESTS)) $(if $(SHOW),--show)

verify: $(tools) ## are the exercises sound? every blank and every wrong answer must fail (N=6: this one)
	@$(exercising) verify $(N)
