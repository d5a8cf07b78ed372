# Makefile -- finds tools, libraries, kernels and tests by wildcard; nothing is registered here.
#
#   make            the tools, in build/cpu/bin
#   make demo       the whole pipeline on real text (pipelines/demo)
#   make check      all tests this build can run        make check SAN=1   under sanitizers
#   make check-long every mapping that fits a small model, to 16 ranks; more tokenizer files
#   make bench      measurements, each beside a peer or a ceiling
#   make check-gpu, make bench-gpu   the same of a GPU; GPUS=2: of two, a process each
#   make fuzz       mutated input under sanitizers, where clang has libFuzzer
#
# CUDA=1, NCCL=1 and MPI=1 add a backend: files named *_cuda.*, *_nccl.* and *_mpi.* replace the
# stand-ins *_nocuda.c, *_nonccl.c and *_nompi.c.  C code never asks which build it is in.  Lasting
# choices of one machine go into config.mk.

-include config.mk

CUDA ?= 0
NCCL ?= 0
MPI  ?= 0
SAN  ?= 0

variant := $(if $(filter 1,$(CUDA)),cuda,cpu)$(if $(filter 1,$(NCCL)),-nccl)$(if $(filter 1,$(MPI)),-mpi)$(if $(filter 1,$(SAN)),-san)
B       := build/$(variant)

CC       ?= cc
CXX      ?= c++
NVCC     ?= nvcc
ARCH     ?= -march=native
CUDAARCH ?= 90a
comma    := ,
OPT      := $(if $(filter 1,$(SAN)),-O1 -fsanitize=address$(comma)undefined -fno-sanitize-recover=all -fno-omit-frame-pointer,-O3)
WARN     := -Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers
# Contraction is off so that a result does not depend on what the compiler chose to fuse.
CFLAGS   := -std=c11 -D_GNU_SOURCE -g $(OPT) $(ARCH) -ffp-contract=off -fno-math-errno -pthread $(WARN) -Ilib -Ilib/op
CXXFLAGS := -std=c++17 -g $(OPT) -pthread -Wall -Ilib
NVFLAGS  := -std=c++17 -O3 -g -gencode=arch=compute_$(CUDAARCH)$(comma)code=sm_$(CUDAARCH) -Ilib -Ilib/op
LDLIBS   := -lopenblas -larchive -lzstd -lsimdjson -lpcre2-8 -lutf8proc -lxxhash -lcrypto -lstdc++ -lm
ifeq ($(CUDA),1)
LDLIBS   += -lcudart -lcublasLt -lcudnn
endif
ifeq ($(NCCL),1)
LDLIBS   += -lnccl
endif
ifeq ($(MPI),1)
CC       := mpicc
endif

absent   := $(if $(filter 1,$(CUDA)),%_nocuda.c,%_cuda.c %_cuda.cu) $(if $(filter 1,$(NCCL)),%_nonccl.c,%_nccl.c %_nccl.cu) \
            $(if $(filter 1,$(MPI)),%_nompi.c,%_mpi.c)
sources  := $(filter-out $(absent),$(wildcard lib/*/*.c lib/*/*.cc))
plain_op := lib/op/op.c lib/op/op_nocuda.c lib/op/op_dry.c
typed    := $(filter-out $(plain_op),$(filter lib/op/%.c,$(sources)))
objects  := $(patsubst %,$B/%.o,$(filter-out $(typed),$(sources))) \
            $(typed:%=$B/%.f32.o) $(typed:%=$B/%.f64.o)
ifeq ($(CUDA),1)
cuda     := $(filter-out $(absent),$(wildcard lib/*/*.cu))
cuda_op  := $(filter-out lib/op/op_cuda.cu,$(filter lib/op/%.cu,$(cuda)))
objects  += $(patsubst %,$B/%.o,$(filter-out $(cuda_op),$(cuda))) $(cuda_op:%=$B/%.f32.o) $(cuda_op:%=$B/%.bf16.o)
endif
tools    := $(patsubst tools/%.c,$B/bin/%,$(wildcard tools/*.c))
ctests   := $(patsubst tests/%.c,$B/tests/%,$(wildcard tests/*.c))

.PHONY: all demo check fuzz check-long check-gpu bench bench-gpu accept install clean setup tests
.DELETE_ON_ERROR:
.SECONDARY:

all: $(tools)
tests: $(tools) $(ctests)

$B/lib.a: $(objects)
	@rm -f $@ && ar crs $@ $^
$B/%.c.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c -o $@ $<
$B/%.c.f32.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -DREAL_F32 -MMD -MP -c -o $@ $<
$B/%.c.f64.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -DREAL_F64 -MMD -MP -c -o $@ $<
$B/%.cc.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<
$B/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) -MMD -MP -c -o $@ $<
$B/%.cu.f32.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) -MMD -MP -DREAL_F32 -c -o $@ $<
$B/%.cu.bf16.o: %.cu
	@mkdir -p $(@D)
	$(NVCC) $(NVFLAGS) -MMD -MP -DREAL_BF16 -c -o $@ $<
$B/bin/%: tools/%.c $B/lib.a
	@mkdir -p $(@D) $B/obj
	$(CC) $(CFLAGS) -MMD -MP -MF $B/obj/$*.d -o $@ $< $B/lib.a -Wl,--as-needed $(LDLIBS)
$B/bench/%: bench/%.c $B/lib.a
	@mkdir -p $(@D) $B/obj
	$(CC) $(CFLAGS) -MMD -MP -MF $B/obj/bench-$*.d -o $@ $< $B/lib.a -Wl,--as-needed $(LDLIBS)
$B/tests/%: tests/%.c $B/lib.a
	@mkdir -p $(@D) $B/obj
	$(CC) $(CFLAGS) -MMD -MP -MF $B/obj/tests-$*.d -o $@ $< $B/lib.a -Wl,--as-needed $(LDLIBS)

setup:
	@./setup

demo: setup
	@$(MAKE) --no-print-directory -s -j$$(nproc) all
	@PATH="$(CURDIR)/$B/bin:$$PATH" pipelines/demo

# prove runs the shell tests and the C tests alike; both speak TAP.
check: setup
	@$(MAKE) --no-print-directory -s -j$$(nproc) tests
	@BUILD=$B SAN=$(SAN) prove -j$$(nproc) --timer -e '' tests/*.t $(ctests)

check-long: all $B/tests/parallel $B/tests/stops $B/tests/reshard $B/tests/text
	@$B/tests/parallel --long
	@$B/tests/stops --long
	@$B/tests/reshard --long
	@BUILD=$B VARIANTS=5000 prove --timer -e '' tests/tok-variants.t

# Any bytes as rows, mutated for FUZZ_SECONDS (60) a target.
fuzz:
	@tests/fuzz/run

accept: tests
	@BUILD=$B ACCEPT=1 prove -e '' tests/*.t

bench: setup
	@$(MAKE) --no-print-directory -s -j$$(nproc) tests $B/bench/ckpt
	@BUILD=$B bench/run

# GPUS=2: on so many GPUs, a process each.
GPUS     ?= 1
gpu_make := $(MAKE) --no-print-directory -s CUDA=1 $(if $(filter-out 1,$(GPUS)),NCCL=1 MPI=1)
gpu      := build/cuda$(if $(filter-out 1,$(GPUS)),-nccl-mpi)
check-gpu:
	@$(gpu_make) -j$$(nproc) tests
	@BUILD=$(gpu) GPUS=$(GPUS) tests/check-gpu

bench-gpu:
	@$(gpu_make) -j$$(nproc) $(gpu)/bench/gpu $(gpu)/bench/decode $(gpu)/bench/comm $(if $(filter-out 1,$(GPUS)),$(gpu)/bench/window)
	@BUILD=$(gpu) GPUS=$(GPUS) bench/$(if $(filter 1,$(GPUS)),gpu-run,gpus-run)

prefix ?= /usr/local
install: all
	install -d $(DESTDIR)$(prefix)/bin $(DESTDIR)$(prefix)/share/man/man1 $(DESTDIR)$(prefix)/share/man/man5 $(DESTDIR)$(prefix)/share/man/man7
	install $(tools) $(DESTDIR)$(prefix)/bin
	for s in 1 5 7; do for m in man/*.$$s; do [ ! -e $$m ] || install -m 644 $$m $(DESTDIR)$(prefix)/share/man/man$$s; done; done

clean:
	rm -rf build

-include $(shell find $B -name '*.d' 2>/dev/null)
