# resin: builds, tests and installs. GNU make 3.81 or newer.
#
#   make                 the libraries and the Lua module, in build/; installs nothing
#   make resnet          installs what is missing, builds, trains a ResNet on embedded images
#   make test            installs what is missing, builds, runs every test
#   make install         to PREFIX (/usr/local), below DESTDIR if given; make uninstall
#   make sanitize        the tests with AddressSanitizer and UBSan
#   make fuzz            the parsers of files on mutated inputs (FUZZ='COUNT SEED' for others)
#   make test-arm        the C tests of the kernels, built for Arm (NEON), under qemu
#   make compare         resin beside PyTorch, in turn: a table and a plot in runs/compare
#                        (COMPARE='--rows resnet20,vgg16 --rounds 3', see scripts/compare.lua)
#   make cifar10         fetches CIFAR-10 to data/cifar10 and checks it; make fashion-mnist likewise
#   make clean
#
# CC, CFLAGS, CPPFLAGS and LDFLAGS add to the flags that the engine needs. WERROR=1 makes warnings
# errors, OPTIMIZE=-O0 serves debuggers, V=1 shows the commands, BUILD=DIR builds elsewhere.

PREFIX ?= /usr/local
BUILD ?= build
OPTIMIZE ?= -O2
SANITIZE ?=
WERROR ?=
V ?=

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.SECONDARY:
.SUFFIXES:
.PHONY: all module resnet test check sanitize fuzz test-arm check-arm compare run-compare cifar10 \
    fashion-mnist install install-lua uninstall clean run-resnet c-tests tests embed-host FORCE

# As many jobs as processors, unless make is given a -j or was called by another make.
ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(or $(shell nproc 2>/dev/null),$(shell getconf _NPROCESSORS_ONLN),1)
endif
ifneq ($(filter clean,$(MAKECMDGOALS)),)
.NOTPARALLEL:
endif

# ---- What was found on this machine -------------------------------------------------------------

ifeq ($(origin CC),default)
CC := $(firstword $(foreach c,cc gcc clang,$(if $(shell command -v $(c)),$(c))) cc)
endif

# Taken before config.mk answers.
FOR_SETUP := CC='$(CC)' CFLAGS='$(CFLAGS)' CPPFLAGS='$(CPPFLAGS)' LDFLAGS='$(LDFLAGS)' \
    LUA='$(LUA)' LUA_INCDIR='$(LUA_INCDIR)' OPENBLAS_LIBDIR='$(OPENBLAS_LIBDIR)' \
    BUSTED='$(or $(BUSTED),$(shell command -v busted || command -v busted-5.4))'

# Goals that look at nothing, or that first install what is missing and call make again.
ifneq ($(filter-out resnet test sanitize test-arm compare cifar10 fashion-mnist uninstall clean,\
    $(or $(MAKECMDGOALS),all)),)
include $(BUILD)/config.mk
endif

# $(call remember,TEXT): a recipe for a file that changes only when TEXT does, so that what depends
# on the file is built again when flags or sources come and go.
remember = @mkdir -p $(@D); printf '%s\n' '$(subst ','\'',$(strip $(1)))' > $@.new; \
    if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

$(BUILD)/setup: FORCE
	$(call remember,$(FOR_SETUP))
$(BUILD)/config.mk: scripts/setup.sh $(BUILD)/setup
	@$(FOR_SETUP) scripts/setup.sh configure $@ $(CONFIGURE)

# ---- Flags --------------------------------------------------------------------------------------

# What the user gives stands first: LuaRocks always passes -O2, which must not slow down the
# kernels, and nothing given may relax the rounding that the tests rely on.
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes $(if $(WERROR),-Werror)
SANITIZE_FLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=undefined \
    -fno-omit-frame-pointer -g)
COMMON_FLAGS = $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(SANITIZE_FLAGS) -fno-fast-math -fPIC -I. \
    -MMD -MP -DRESIN_BUILD -fvisibility=hidden
ENGINE_FLAGS = $(COMMON_FLAGS) -std=c11 -D_GNU_SOURCE $(OPTIMIZE) -ffp-contract=off \
    $(FEATURES)
# One source for all instruction sets (core/kernels/kernel.h). gnu11 and -ffp-contract=fast: fused
# multiply-add where the set has it. Without errno, so that loops with roots become vector code; and
# without tables for unwinding, since no exception passes a kernel and they would be large.
KERNEL_FLAGS = $(COMMON_FLAGS) -std=gnu11 -O3 -ffp-contract=fast -fno-math-errno -fopenmp-simd \
    -fno-asynchronous-unwind-tables
KERNEL_FLAGS_v4 := -march=x86-64-v4 -mprefer-vector-width=512
KERNEL_FLAGS_v3 := -march=x86-64-v3
KERNEL_FLAGS_v2 := -march=x86-64-v2
# CFLAGS may name a processor; the generic kernels must still run on any. Beside the others they are
# for processors from before 2009 and cost the library a fifth less without loops unrolled.
KERNEL_FLAGS_generic = $(if $(filter v2,$(KERNEL_SETS)),-march=x86-64 -mtune=generic -O2)
TEST_FLAGS = $(ENGINE_FLAGS) -DRESIN_TEST

LIBRARIES = $(FEATURE_LIBS) -lm -ldl -lpthread

# ---- Sources ------------------------------------------------------------------------------------

# Beside the kernels stand two files that are compiled once, as ordinary code.
AROUND_KERNELS := core/kernels/dispatch.c core/kernels/measure.c
KERNEL_SOURCES := $(sort $(filter-out $(AROUND_KERNELS),$(wildcard core/kernels/*.c)))
ENGINE_SOURCES := $(sort $(filter-out $(KERNEL_SOURCES),$(wildcard core/*/*.c)))
BINDING_SOURCES := $(sort $(wildcard lua/binding/*.c))
LUA_FILES := $(sort $(wildcard lua/resin/*.lua lua/resin/*/*.lua))
C_TESTS := $(sort $(wildcard tests/c/test_*.c))
# Programs for measurements stand beside the tests: make build/tests/bench_conv.
C_TEST_SHARED := $(filter-out tests/c/test_% tests/c/bench_%,$(sort $(wildcard tests/c/*.c)))
EMBED_TESTS := $(wildcard tests/embed/host.c)
LUA_TESTS := $(sort $(wildcard tests/lua/*_spec.lua))

OBJECTS := $(BUILD)/obj
ENGINE_OBJECTS = $(ENGINE_SOURCES:%.c=$(OBJECTS)/%.o) $(foreach set,$(KERNEL_SETS),\
    $(KERNEL_SOURCES:core/kernels/%.c=$(OBJECTS)/$(set)/%.o))
BINDING_OBJECTS := $(BINDING_SOURCES:%.c=$(OBJECTS)/%.o)
C_TEST_SHARED_OBJECTS := $(C_TEST_SHARED:%.c=$(OBJECTS)/%.o)
C_TEST_PROGRAMS := $(C_TESTS:tests/c/%.c=$(BUILD)/tests/%)

# ---- Libraries: how this system makes them ------------------------------------------------------

VERSION := $(shell sed -n 's/^.define RESIN_VERSION "\(.*\)"/\1/p' core/resin.h)
ABI := $(shell sed -n 's/^.define RESIN_ABI_VERSION //p' core/resin.h)
LUA_ABI := $(shell sed -n 's/^.define RESIN_LUA_ABI_VERSION //p' lua/binding/resin_lua.h)

ifeq ($(shell uname -s),Darwin)
SHARED = -dynamiclib -install_name $(PREFIX)/lib/$(notdir $@)
HOST_GIVES_LUA := -undefined dynamic_lookup
MODULE := -bundle -undefined dynamic_lookup -Wl,-exported_symbol,_luaopen_resin_core
LIBRESIN := libresin.$(ABI).dylib
LIBRESIN_LUA := libresin_lua.$(LUA_ABI).dylib
link_name = $(basename $(basename $(1))).dylib
else
SHARED = -shared -Wl,-soname,$(notdir $@)
HOST_GIVES_LUA :=
# Nothing may be missing; sanitizers come with the program.
COMPLETE := $(if $(SANITIZE),,-Wl,-z,defs)
# The module stays in memory after lua_close, because threads of OpenBLAS may live on in it.
MODULE := -shared -Wl,-z,nodelete -Wl,--version-script=$(BUILD)/module.map
LIBRESIN := libresin.so.$(ABI)
LIBRESIN_LUA := libresin_lua.so.$(LUA_ABI)
link_name = $(basename $(1))
# In an archive hidden symbols can still be linked against and clash: one object that has only the
# public ones, where the tool for it exists.
OBJCOPY := $(shell command -v objcopy)
endif

# ---- Building -----------------------------------------------------------------------------------

ifeq ($(V),)
.SILENT:
endif

all: $(BUILD)/$(LIBRESIN) $(BUILD)/libresin.a $(BUILD)/lua/resin/core.so \
    $(BUILD)/$(LIBRESIN_LUA) $(BUILD)/libresin_lua.a

$(BUILD)/flags: FORCE
	$(call remember,$(CC) $(TEST_FLAGS) / $(KERNEL_FLAGS) \
	    $(foreach set,$(KERNEL_SETS),$(KERNEL_FLAGS_$(set))) / $(LUA_FLAGS) / $(LIBRARIES) $(LDFLAGS))
$(BUILD)/sources: FORCE
	$(call remember,$(ENGINE_OBJECTS) $(BINDING_OBJECTS))

# The Lua module alone: what LuaRocks builds.
module: $(BUILD)/lua/resin/core.so

# $(call compile,FLAGS[, WHAT TO SAY])
compile = mkdir -p $(@D); echo "$(CC) $<$(2)"; $(CC) $(1) -c $< -o $@

$(OBJECTS)/core/%.o: core/%.c $(BUILD)/flags
	$(call compile,$(ENGINE_FLAGS) $(FILE_FLAGS))
$(OBJECTS)/lua/%.o: lua/%.c $(BUILD)/flags
	$(call compile,$(ENGINE_FLAGS) -Icore $(LUA_FLAGS))
$(OBJECTS)/tests/%.o: tests/%.c $(BUILD)/flags
	$(call compile,$(TEST_FLAGS))

define kernel_rule
$$(OBJECTS)/$(1)/%.o: core/kernels/%.c $$(BUILD)/flags
	$$(call compile,$$(KERNEL_FLAGS) $$(FILE_FLAGS) $$(KERNEL_FLAGS_$(1)) -DKERNEL_ISA=$(1), ($(1)))
endef
$(foreach set,$(KERNEL_SETS),$(eval $(call kernel_rule,$(set))))

# Kernels that -O3 makes larger but not faster; some of them a little faster for the newest set.
SMALL_KERNELS = conv_strided conv_pack $(if $(filter-out v4,$(1)),conv_phases product_few)
$(foreach set,$(KERNEL_SETS),$(foreach kernel,$(call SMALL_KERNELS,$(set)),\
    $(OBJECTS)/$(set)/$(kernel).o)): FILE_FLAGS = -O2

# Which sets exist, for the choice at run time; and where OpenBLAS may be.
$(OBJECTS)/core/kernels/dispatch.o: FILE_FLAGS = $(patsubst v%,-DRESIN_HAVE_V%,$(filter v%,$(KERNEL_SETS)))
$(OBJECTS)/core/base/blas.o: FILE_FLAGS = -DRESIN_OPENBLAS_PATHS='"$(OPENBLAS_PATHS)"'
$(OBJECTS)/core/kernels/dispatch.o $(OBJECTS)/core/base/blas.o: $(BUILD)/config.mk

# $(call link,FLAGS,OBJECTS)
link = mkdir -p $(@D); echo "link $@"; \
    $(CC) $(CFLAGS) $(SANITIZE_FLAGS) $(1) -o $@ $(2) $(LDFLAGS) $(LIBRARIES)
shared_library = $(call link,$(SHARED) $(2),$(1)); ln -sf $(@F) $(call link_name,$@)
static_library = echo "archive $@"; rm -f $@; $(if $(OBJCOPY),\
    $(CC) -r -nostdlib -o $@.o $(1) && $(OBJCOPY) --localize-hidden $@.o && \
    $(AR) rcs $@ $@.o && rm $@.o,$(AR) rcs $@ $(1))

$(BUILD)/$(LIBRESIN): $(ENGINE_OBJECTS) $(BUILD)/sources
	$(call shared_library,$(ENGINE_OBJECTS),$(COMPLETE))
$(BUILD)/libresin.a: $(ENGINE_OBJECTS) $(BUILD)/sources
	$(call static_library,$(ENGINE_OBJECTS))
$(BUILD)/$(LIBRESIN_LUA): $(ENGINE_OBJECTS) $(BINDING_OBJECTS) $(BUILD)/sources
	$(call shared_library,$(ENGINE_OBJECTS) $(BINDING_OBJECTS),$(HOST_GIVES_LUA))
$(BUILD)/libresin_lua.a: $(ENGINE_OBJECTS) $(BINDING_OBJECTS) $(BUILD)/sources
	$(call static_library,$(ENGINE_OBJECTS) $(BINDING_OBJECTS))
$(BUILD)/lua/resin/core.so: $(ENGINE_OBJECTS) $(BINDING_OBJECTS) $(BUILD)/sources $(BUILD)/module.map
	$(call link,$(MODULE) $(LIBFLAG),$(ENGINE_OBJECTS) $(BINDING_OBJECTS))
$(BUILD)/module.map: $(BUILD)/config.mk
	echo '{ global: luaopen_resin_core; local: *; };' > $@

-include $(wildcard $(OBJECTS)/*/*.d $(OBJECTS)/*/*/*.d $(OBJECTS)/*/*/*/*.d)

# ---- Installing ---------------------------------------------------------------------------------

LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
LUADIR ?= $(PREFIX)/share/lua/5.4
LUA_LIBDIR ?= $(PREFIX)/lib/lua/5.4

# $(call install_file,MODE,FILE,FOLDER)
install_file = mkdir -p '$(DESTDIR)$(3)' && install -m $(1) $(2) '$(DESTDIR)$(3)/'

# $(call pkg_config,NAME,DESCRIPTION,LIBRARY) on standard output
define pkg_config
printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCLUDEDIR)' \
    'luadir=$(LUADIR)' 'lualibdir=$(LUA_LIBDIR)' '' 'Name: $(1)' 'Description: $(2)' \
    'Version: $(VERSION)' 'Cflags: -I$${includedir}' 'Libs: -L$${libdir} -l$(3)' \
    'Libs.private: $(strip $(LIBRARIES))'
endef

install: all install-lua
	$(call install_file,644,$(BUILD)/libresin.a $(BUILD)/libresin_lua.a,$(LIBDIR))
	$(call install_file,755,$(BUILD)/$(LIBRESIN) $(BUILD)/$(LIBRESIN_LUA),$(LIBDIR))
	ln -sf $(LIBRESIN) '$(DESTDIR)$(LIBDIR)/$(call link_name,$(LIBRESIN))'
	ln -sf $(LIBRESIN_LUA) '$(DESTDIR)$(LIBDIR)/$(call link_name,$(LIBRESIN_LUA))'
	$(call install_file,644,core/resin.h lua/binding/resin_lua.h,$(INCLUDEDIR))
	$(call pkg_config,resin,a deep-learning engine,resin) > $(BUILD)/resin.pc
	$(call pkg_config,resin-lua,resin for hosts with a Lua 5.4 of their own,resin_lua) \
	    > $(BUILD)/resin-lua.pc
	$(call install_file,644,$(BUILD)/resin.pc $(BUILD)/resin-lua.pc,$(LIBDIR)/pkgconfig)
	# The loader's cache, where there is one and it may be written.
	if [ -z '$(DESTDIR)' ] && [ -w /etc/ld.so.cache ]; then ldconfig; fi
	echo "installed to $(DESTDIR)$(PREFIX)"

install-lua: $(BUILD)/lua/resin/core.so
	$(call install_file,755,$<,$(LUA_LIBDIR)/resin)
	$(foreach file,$(LUA_FILES),\
	    $(call install_file,644,$(file),$(LUADIR)/$(patsubst lua/%/,%,$(dir $(file)))) &&) :

uninstall:
	rm -f '$(DESTDIR)$(LIBDIR)'/libresin.* '$(DESTDIR)$(LIBDIR)'/libresin_lua.* \
	    '$(DESTDIR)$(LIBDIR)'/pkgconfig/resin.pc '$(DESTDIR)$(LIBDIR)'/pkgconfig/resin-lua.pc \
	    '$(DESTDIR)$(INCLUDEDIR)'/resin.h '$(DESTDIR)$(INCLUDEDIR)'/resin_lua.h
	rm -rf '$(DESTDIR)$(LUADIR)/resin' '$(DESTDIR)$(LUA_LIBDIR)/resin'

# ---- Running and testing ------------------------------------------------------------------------

resnet:
	$(FOR_SETUP) scripts/setup.sh install build
	+$(MAKE) --no-print-directory run-resnet

run-resnet: all
	$(LUA) scripts/train_resnet.lua

cifar10 fashion-mnist:
	scripts/fetch_data.sh $@

compare:
	$(FOR_SETUP) scripts/setup.sh install compare
	+$(MAKE) --no-print-directory run-compare

run-compare: module
	RESIN_BUILD='$(abspath $(BUILD))' $(LUA) scripts/compare.lua $(COMPARE)

test:
	$(FOR_SETUP) scripts/setup.sh install test
	+$(MAKE) --no-print-directory check

c-tests: $(C_TEST_PROGRAMS)
tests: c-tests $(if $(EMBED_TESTS),embed-host)

$(BUILD)/tests/%: $(OBJECTS)/tests/c/%.o $(C_TEST_SHARED_OBJECTS) $(ENGINE_OBJECTS) $(BUILD)/sources
	$(call link,,$< $(C_TEST_SHARED_OBJECTS) $(ENGINE_OBJECTS) -lcmocka)

# A host sees what is installed and nothing of the tree.
PREFIX_FOR_HOST := $(abspath $(BUILD))/embed-prefix
embed-host: all
	rm -rf $(PREFIX_FOR_HOST)
	+$(MAKE) --no-print-directory install PREFIX=$(PREFIX_FOR_HOST) DESTDIR=
	mkdir -p $(BUILD)/tests/embed
	echo "$(CC) $(EMBED_TESTS)"
	PKG_CONFIG_PATH=$(PREFIX_FOR_HOST)/lib/pkgconfig; export PKG_CONFIG_PATH; \
	$(CC) $(CPPFLAGS) $(CFLAGS) $(WARNINGS) $(SANITIZE_FLAGS) -std=c11 $(EMBED_TESTS) \
	    -o $(BUILD)/tests/embed/host $(LUA_FLAGS) `pkg-config --cflags resin-lua` \
	    -DINSTALLED_LUA="\"`pkg-config --variable=luadir resin-lua`\"" $(LDFLAGS) \
	    `pkg-config --libs resin-lua` -Wl,-rpath,$(PREFIX_FOR_HOST)/lib $(LUA_LIBS) -lpthread

# The tests run from the project's root on what stands in the tree. ONLY=conv runs those that have
# "conv" in their file's name.
TREE := RESIN_BUILD='$(abspath $(BUILD))' \
    LUA_PATH_5_4='$(CURDIR)/lua/?.lua;$(CURDIR)/lua/?/init.lua;;' \
    LUA_CPATH_5_4='$(abspath $(BUILD))/lua/?.so;;'
ALL_TESTS := $(C_TEST_PROGRAMS) $(LUA_TESTS) $(addprefix $(BUILD)/,$(basename $(EMBED_TESTS)))
CHOSEN_TESTS := $(if $(ONLY),$(foreach test,$(ALL_TESTS),$(if $(findstring $(ONLY),$(notdir $(test))),$(test))),\
    $(ALL_TESTS))

check: all tests
	$(TREE) BUSTED='$(strip $(PRELOAD) $(BUSTED_COMMAND)) -o plainTerminal' \
	    $(LUA) tests/run.lua $(CHOSEN_TESTS)

# The whole of it with the sanitizers of gcc, in a build of its own. Leaks are looked for in the C
# tests and in the host; not under the lua program, which is not ours.
sanitize:
	+$(MAKE) --no-print-directory test BUILD=$(BUILD)/sanitize SANITIZE=address,undefined

ifneq ($(findstring address,$(SANITIZE)),)
PRELOAD := env LD_PRELOAD=$(shell $(CC) -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
endif

# The kernels' C tests for Arm, where vectors of 4 floats are NEON's: built by Debian's compiler for
# it, run by qemu. A build of its own, without Lua.
ARM_BUILD := $(abspath $(BUILD))/arm
ARM_CMOCKA := $(ARM_BUILD)/cmocka/usr
ARM_TESTS := autograd conv functions layers ops ops_layout optim pool profile tensor
ARM_RUNNER := qemu-aarch64 -L /usr/aarch64-linux-gnu

test-arm:
	$(FOR_SETUP) scripts/setup.sh install arm
	scripts/setup.sh cmocka arm64 $(ARM_BUILD)/cmocka
	+$(MAKE) --no-print-directory check-arm BUILD=$(ARM_BUILD) CC=aarch64-linux-gnu-gcc \
	    CONFIGURE=engine CPPFLAGS=-I$(ARM_CMOCKA)/include \
	    LDFLAGS='-L$(ARM_CMOCKA)/lib/aarch64-linux-gnu -Wl,-rpath,$(ARM_CMOCKA)/lib/aarch64-linux-gnu'

check-arm: $(ARM_TESTS:%=$(BUILD)/tests/test_%)
	RESIN_TEST_RUNNER='$(ARM_RUNNER)' RESIN_TEST_SECONDS=3600 $(LUA) tests/run.lua $^

# Better with sanitizers: make fuzz BUILD=build/sanitize SANITIZE=address,undefined
$(BUILD)/tests/fuzz_files: $(OBJECTS)/tests/fuzz/fuzz_files.o $(ENGINE_OBJECTS) $(BUILD)/sources
	$(call link,,$< $(ENGINE_OBJECTS))
fuzz: $(BUILD)/tests/fuzz_files
	$< $(FUZZ)

clean:
	rm -rf $(BUILD)
