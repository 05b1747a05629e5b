# Included by CMake right after llama.cpp's project(): the serving library alone, without the
# command-line helpers (`common`), which llama-cpp-python's own CMakeLists otherwise forces on.
set(LLAMA_BUILD_COMMON OFF)
set(LLAMA_BUILD_TOOLS OFF)
set(LLAMA_OPENSSL OFF)
