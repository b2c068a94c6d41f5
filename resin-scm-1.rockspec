rockspec_format = "3.0"
package = "resin"
version = "scm-1"

-- `luarocks make` builds the tree that this file stands in and does not read the address.
source = {
    url = "git+file://.",
}

description = {
    summary = "A deep-learning engine for residual networks on CPUs",
    detailed = [[
        Tensors, automatic differentiation, fast convolutions and trees in multithreaded C;
        networks and training in Lua.
    ]],
    license = "MIT",
}

dependencies = {
    "lua >= 5.4, < 5.5",
}

-- Loaded when first needed, so neither a header nor a link is wanted.
external_dependencies = {
    OPENBLAS = { library = "openblas" },
}

build = {
    type = "make",
    build_target = "module",
    install_target = "install-lua",
    -- Both calls of make get these, so that the second finds nothing to build.
    variables = {
        BUILD = "build/luarocks",
        CFLAGS = "$(CFLAGS)",
        LIBFLAG = "$(LIBFLAG)",
        LUA = "$(LUA)",
        LUA_INCDIR = "$(LUA_INCDIR)",
        OPENBLAS_LIBDIR = "$(OPENBLAS_LIBDIR)",
    },
    install_variables = {
        LUADIR = "$(LUADIR)",
        LUA_LIBDIR = "$(LIBDIR)",
    },
}
