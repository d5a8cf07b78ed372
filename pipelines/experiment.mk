# experiment.mk -- the arms of pipelines/demo as a Makefile: stop it anywhere, run it again, and it
# goes on; run it once more, and nothing is done.  Every target is a file that its tool publishes
# whole: rows with -o, the manifest of a set, the done.json of a run.
#
#   make -f pipelines/experiment.mk -j2             works in build/experiment; D=folder for another
#   make -f pipelines/experiment.mk SMALL=1         in seconds, too little to learn from
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SECONDARY:
.SECONDEXPANSION:

here := $(dir $(realpath $(lastword $(MAKEFILE_LIST))))
export PATH := $(here)../build/cpu/bin:$(PATH)
D ?= build/experiment
fortunes := /usr/share/games/fortunes
steps_base := $(if $(SMALL),3,500)
steps_sft  := $(if $(SMALL),2,100)
steps_rm   := $(if $(SMALL),2,150)
steps_arm  := $(if $(SMALL),2,100)
topics     := $(if $(SMALL),fortunes,$(notdir $(filter-out %.dat %.u8 $(fortunes)/%art,$(wildcard $(fortunes)/*))))

part_sft   := 1-19
part_own   := 1-2
part_other := 3-6
part_held  := 20
method_more   := none
method_random := random --top-k 1
method_fa     := fa --top-k 1
method_rwr    := rwr --norm global
method_ca     := ca --ca-mode text --allow-control
arms    := more random fa rwr ca
answers := sft more random fa rwr ca-top ca-low ca-none

pack  = shard-pack -q -t $D/tok.json --seq 128 --overlong drop --window 1000 -o $(@D)/
# A finished run does not touch its done.json again.
train = moe-train -q --data $(@D:.run=)/ -o $(@D)/ $1 && touch $@
base  = --init $D/sft.run/

.PHONY: all
all: $D/report.txt

$D/rows.jsonl:
	mkdir -p $D
	(cd $(fortunes) && pref-cat -q --split-on % $(topics)) | pref-filter -q --dedup exact | \
	    pref-cat -q --prompt-words 8 -o $@
$(foreach p,sft own other held,$D/$p.jsonl): $D/%.jsonl: $D/rows.jsonl
	pref-filter -q --part $(part_$*)/20 $< -o $@
# Prompt and response end to end are the text.
$D/text.jsonl: $D/sft.jsonl
	sed -E 's/"prompt":"(([^"\\]|\\.)*)","response":"/"text":"\1/' $< >$@
$D/tok.json: $D/text.jsonl
	tok-train -q --vocab 2048 -o $@ $<

$D/base/manifest.json: $D/text.jsonl $D/tok.json
	$(pack) --overlong split $<
$D/sft/manifest.json: $D/sft.jsonl $D/tok.json
	$(pack) --overlong truncate $<
$D/base.run/done.json: $D/base/manifest.json
	$(call train,--model $(here)tiny.json --steps $(steps_base) --batch 16 --lr 2e-3)
$D/sft.run/done.json: $D/sft/manifest.json $D/base.run/done.json
	$(call train,--init $D/base.run/ --steps $(steps_sft) --batch 16 --lr 1e-3)

$(foreach p,own other,$D/$p.samples.jsonl): $D/%.samples.jsonl: $D/%.jsonl $D/sft.run/done.json
	moe-sample -q -m $D/sft.run/ -n 8 --max-tokens 48 $< -o $@
$D/%.valence.jsonl: $D/%.samples.jsonl
	reward-score -q --lexicon $(here)valence.tsv $< -o $@

$D/rm.rows.jsonl: $D/other.valence.jsonl
	pref-filter -q --method pairs $< -o $@
$(arms:%=$D/%.rows.jsonl): $D/%.rows.jsonl: $D/own.valence.jsonl
	pref-filter -q --method $(method_$*) $< -o $@
$D/%/manifest.json: $D/%.rows.jsonl $D/tok.json
	$(pack) $<
$D/rm.run/done.json: $D/rm/manifest.json $D/sft.run/done.json
	$(call train,--loss bt $(base) --steps $(steps_rm) --batch 16 --lr 2e-3)
$D/%.run/done.json: $D/%/manifest.json $D/sft.run/done.json
	$(call train,$(base) --steps $(steps_arm) --batch 24 --lr 1e-3)

# The answers "ca-top" are those of the run ca with --tag top.
$(answers:%=$D/%.samples.jsonl): $D/%.samples.jsonl: $D/held.jsonl \
        $D/$$(firstword $$(subst -, ,$$*)).run/done.json
	moe-sample -q -m $D/$(firstword $(subst -, ,$*)).run/ $(patsubst ca-%,--tag %,$(filter ca-%,$*)) \
	    -n 4 --max-tokens 48 $< -o $@
$D/%.judged.jsonl: $D/%.valence.jsonl $D/rm.run/done.json
	reward-score -q -m $D/rm.run/ --field model $< -o $@
$D/report.txt: $(answers:%=$D/%.judged.jsonl)
	pref-stat -q --tsv $^ -o $D/valence.tsv
	pref-stat -q --tsv --field model $^ -o $D/model.tsv
	pref-stat -q $^ -o $@
	cat $@
