/* SPDX-License-Identifier: MIT */
/*
 * chart.h - what was measured, as charts of a page (report/page.h)
 */
#ifndef DEMO_CHART_H
#define DEMO_CHART_H

#include "report/page.h"
#include "summary.h"

/* Latencies of requests from one moment to another, in seconds; what lies outside the measurement is cut. */
int chart_latency(struct report *report, const struct summary *summary, const struct measured *measured,
                  const char *title, const char *text, double from, double to);

/* Requests a second, over all the time. */
int chart_rate(struct report *report, const struct summary *summary, const struct measured *measured);

/* Faults of all clients of a manager, over the bytes of their store and over time. */
int chart_faults(struct report *report, const struct measured *measured, const char *folder, const char *title,
                 const char *text);

#endif
