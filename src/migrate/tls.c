// SPDX-License-Identifier: MIT
/* Contracts: migrate/tls.h. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>

#include "migrate/tls.h"
#include "store/module.h"

static const struct store_module wanted = {.name = "tls", .builds = "libgnutls28-dev", .runs = "libgnutls30"};

static const struct tls_module *find(char cause[TLS_CAUSE])
{
	struct uf_store_cause why = {.text = ""};
	const struct tls_module *module = store_module_find(&wanted, "uf_migrate_tls_module", &why);

	if (!module)
		snprintf(cause, TLS_CAUSE, "%.*s", TLS_CAUSE - 1, why.text);
	return module;
}

int tls_open(struct tls_settings **out, const struct uf_migrate_tls *from, bool server, char cause[TLS_CAUSE])
{
	const struct tls_module *module;

	*out = NULL;
	if (!from)
		return 0;
	module = find(cause);
	return module ? module->open(out, from, server, cause) : -EOPNOTSUPP;
}

void tls_close(struct tls_settings *settings)
{
	if (settings)
		find((char[TLS_CAUSE]){0})->close(settings);
}

int tls_greet(const struct tls_settings *settings, struct stream *stream, char cause[TLS_CAUSE])
{
	const struct tls_module *module;
	int err;

	if (!settings)
		return 0;
	module = find(cause);
	err = module->begin(&stream->tls, settings, stream->fd);
	while (!err) {
		err = module->greet(stream->tls, cause);
		if (err == -EINTR) {
			/* There is no room for what is to be sent: rare, as it is little. */
			err = 0;
			sched_yield();
			continue;
		}
		if (err != -EAGAIN)
			break;
		err = stream_wait(stream, stream->timeout_ms);
		err = err == -EAGAIN ? -ENOTCONN : err;
	}
	return err;
}
