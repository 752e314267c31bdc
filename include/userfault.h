/* SPDX-License-Identifier: MIT */
/* userfault.h - every public header of libuserfault */
#ifndef USERFAULT_H
#define USERFAULT_H

#include <userfault/dirty.h>
#include <userfault/handover.h>
#include <userfault/migrate.h>
#include <userfault/pager.h>
#include <userfault/store.h>
#include <userfault/uffd.h>

#endif
