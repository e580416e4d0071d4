#!/bin/sh
# Builds wheels of what sources.txt pins, with the pip of the Python that has the torch to build for:
#     build.sh FOLDER PIP [OPTION...]
# Needs a C++ compiler, make, cmake (older than 4), ninja, and Python's headers; no MPI and no CUDA.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$1
shift
jobs=$(nproc)
sources=$(mktemp -d)
trap 'rm -rf "$sources"' EXIT

"$@" download --no-deps --no-binary :all: --no-build-isolation --require-hashes \
    --dest "$sources" --requirement "$here/sources.txt"
for archive in "$sources"/*.tar.gz; do
    tar --extract --gzip --no-same-owner --directory "$sources" --file "$archive"
done

# DeepSpeed: its own communication and optimizers are compiled now, or each job would do it, with a compiler in its pods.
cd "$sources"/deepspeed-*/
# For every x86-64 processor with AVX2, not only for the one that builds.
sed -i "s/-march=native/-march=x86-64-v3/; s/-D__AVX512__/-D__AVX256__/" op_builder/builder.py
# Nobody debugs it, and compiling it with debug information takes twice as long.
sed -i "s/'-g', //" op_builder/cpu/builder.py
export DS_ACCELERATOR=cpu DS_BUILD_SHM_COMM=1 DS_BUILD_CPU_ADAM=1 DS_BUILD_FUSED_ADAM=1 DS_ENABLE_NINJA=1 MAX_JOBS="$jobs"

# Horovod: for PyTorch, over Gloo.
cd "$sources"/horovod-*/
sed -i "s/RelWithDebInfo/Release/" setup.py
# The C++ that torch's headers are written in.
sed -i "s/CMAKE_CXX_STANDARD 14/CMAKE_CXX_STANDARD 17/" CMakeLists.txt horovod/torch/CMakeLists.txt
# It is assigned, which gcc 14 no longer overlooks.
sed -i "s/const size_type count_;/size_type count_;/" third_party/flatbuffers/include/flatbuffers/stl_emulation.h
# Headers of gcc 13 and newer no longer include it by the way.
export CXXFLAGS="-include stdexcept"
export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
export HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 MAKEFLAGS="-j$jobs"

# Without symbols that only a debugger reads.
export CFLAGS=-g0 LDFLAGS=-Wl,-s
"$@" wheel --no-deps --no-build-isolation --no-index --wheel-dir "$folder" "$sources"/*/
