// SPDX-License-Identifier: MIT
#include <errno.h>
#include "uffd/engine.h"
