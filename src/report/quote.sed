# SPDX-License-Identifier: MIT
# A text as a string of C.
s/\\/\\\\/g
s/"/\\"/g
s/.*/"&\\n"/
