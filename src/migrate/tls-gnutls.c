// SPDX-License-Identifier: MIT
/* The module of migrate/tls.h, with GnuTLS. */
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/options.h"
#include "migrate/tls.h"
#include "store/module.h"

STORE_MODULE;

#define PRIORITY     "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define PRIORITY_PSK PRIORITY ":+ECDHE-PSK:+PSK"
#define LINE         1024

struct tls_settings {
	bool server;
	char *name; /* NULL: any */
	gnutls_certificate_credentials_t certificates;
	gnutls_psk_client_credentials_t psk_client;
	gnutls_psk_server_credentials_t psk_server;
	char identity[LINE];
	gnutls_datum_t key; /* hexadecimal digits, in `line` */
	char line[LINE];
};

struct session {
	struct stream_tls tls;
	const struct tls_settings *settings;
	gnutls_session_t session;
};

static int fail(char cause[TLS_CAUSE], const char *what, const char *why)
{
	snprintf(cause, TLS_CAUSE, "%s: %s", what, why);
	return -EINVAL;
}

/* ---- settings ---- */

static int load_certificates(struct tls_settings *settings, const struct uf_migrate_tls *from, char cause[TLS_CAUSE])
{
	int err = gnutls_certificate_allocate_credentials(&settings->certificates);

	if (err)
		return -ENOMEM;
	err = gnutls_certificate_set_x509_trust_file(settings->certificates, from->ca, GNUTLS_X509_FMT_PEM);
	/* How many it has found. */
	if (err <= 0)
		return fail(cause, from->ca, err ? gnutls_strerror(err) : "no certificate in it");
	err = gnutls_certificate_set_x509_key_file(settings->certificates, from->cert, from->key, GNUTLS_X509_FMT_PEM);
	return err ? fail(cause, from->cert, gnutls_strerror(err)) : 0;
}

static int find_key(gnutls_session_t session, const char *identity, gnutls_datum_t *key)
{
	const struct session *self = gnutls_session_get_ptr(session);

	if (strcmp(identity, self->settings->identity))
		return -1;
	return gnutls_hex_decode2(&self->settings->key, key) ? -1 : 0;
}

static int take_line(struct tls_settings *settings, const char *path, char cause[TLS_CAUSE])
{
	char *line = settings->line, *colon;
	FILE *file = fopen(path, "re");
	size_t digits;

	if (!file)
		return fail(cause, path, strerror(errno));
	if (!fgets(line, LINE, file))
		line[0] = '\0';
	fclose(file);
	line[strcspn(line, "\n")] = '\0';
	colon = strchr(line, ':');
	digits = colon ? strspn(colon + 1, "0123456789abcdefABCDEF") : 0;
	if (!colon || colon == line || digits < 32 || digits % 2 || colon[1 + digits])
		return fail(cause, path, "not IDENTITY:KEY, with a key of 32 hexadecimal digits at least");
	memcpy(settings->identity, line, (size_t)(colon - line));
	settings->key = (gnutls_datum_t){(unsigned char *)colon + 1, (unsigned)digits};
	return 0;
}

static int load_psk(struct tls_settings *settings, const char *path, char cause[TLS_CAUSE])
{
	int err = take_line(settings, path, cause);

	if (err)
		return err;
	if (settings->server) {
		if (gnutls_psk_allocate_server_credentials(&settings->psk_server))
			return -ENOMEM;
		gnutls_psk_set_server_credentials_function(settings->psk_server, find_key);
		return 0;
	}
	if (gnutls_psk_allocate_client_credentials(&settings->psk_client))
		return -ENOMEM;
	err = gnutls_psk_set_client_credentials(settings->psk_client, settings->identity, &settings->key,
	                                        GNUTLS_PSK_KEY_HEX);
	return err ? fail(cause, path, gnutls_strerror(err)) : 0;
}

static void settings_close(struct tls_settings *settings)
{
	if (settings->certificates)
		gnutls_certificate_free_credentials(settings->certificates);
	if (settings->psk_client)
		gnutls_psk_free_client_credentials(settings->psk_client);
	if (settings->psk_server)
		gnutls_psk_free_server_credentials(settings->psk_server);
	gnutls_memset(settings->line, 0, sizeof(settings->line));
	free(settings->name);
	free(settings);
}

static int settings_open(struct tls_settings **out, const struct uf_migrate_tls *from, bool server,
                         char cause[TLS_CAUSE])
{
	struct uf_migrate_tls options = {.size = sizeof(options)};
	struct tls_settings *settings;
	int err = options_take(&options, sizeof(options), from, sizeof(options));

	snprintf(cause, TLS_CAUSE, "no memory");
	if (err)
		return err;
	if (!options.psk == !(options.ca && options.cert && options.key))
		return fail(cause, "options", "either psk, or ca, cert and key");
	settings = calloc(1, sizeof(*settings));
	if (!settings)
		return -ENOMEM;
	settings->server = server;
	settings->name = options.name ? strdup(options.name) : NULL;
	err = options.name && !settings->name ? -ENOMEM
	      : options.psk                   ? load_psk(settings, options.psk, cause)
	                                      : load_certificates(settings, &options, cause);
	if (err)
		settings_close(settings);
	else
		*out = settings;
	return err;
}

/* ---- connections ---- */

static ssize_t result_of(ssize_t result)
{
	if (result == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (result == GNUTLS_E_INTERRUPTED)
		return -EINTR;
	return result < 0 ? -ENOTCONN : result;
}

static ssize_t session_send(struct stream_tls *tls, const void *bytes, size_t len)
{
	return result_of(gnutls_record_send(((struct session *)tls)->session, bytes, len));
}

static ssize_t session_receive(struct stream_tls *tls, void *bytes, size_t len)
{
	return result_of(gnutls_record_recv(((struct session *)tls)->session, bytes, len));
}

static bool session_holds(struct stream_tls *tls)
{
	return gnutls_record_check_pending(((struct session *)tls)->session) > 0;
}

static void session_close(struct stream_tls *tls)
{
	struct session *session = (struct session *)tls;

	gnutls_deinit(session->session);
	free(session);
}

static int set_up(struct session *session, int fd)
{
	const struct tls_settings *settings = session->settings;
	int err = gnutls_init(&session->session, (settings->server ? GNUTLS_SERVER : GNUTLS_CLIENT) | GNUTLS_NONBLOCK |
	                                                 GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);

	if (err)
		return err;
	gnutls_session_set_ptr(session->session, session);
	gnutls_transport_set_int(session->session, fd);
	err = gnutls_priority_set_direct(session->session, settings->certificates ? PRIORITY : PRIORITY_PSK, NULL);
	if (err)
		return err;
	if (settings->psk_server)
		return gnutls_credentials_set(session->session, GNUTLS_CRD_PSK, settings->psk_server);
	if (settings->psk_client)
		return gnutls_credentials_set(session->session, GNUTLS_CRD_PSK, settings->psk_client);
	gnutls_session_set_verify_cert(session->session, settings->name, 0);
	if (settings->server)
		gnutls_certificate_server_set_request(session->session, GNUTLS_CERT_REQUIRE);
	return gnutls_credentials_set(session->session, GNUTLS_CRD_CERTIFICATE, settings->certificates);
}

static int session_begin(struct stream_tls **out, const struct tls_settings *settings, int fd)
{
	struct session *session = calloc(1, sizeof(*session));

	if (!session)
		return -ENOMEM;
	session->settings = settings;
	session->tls = (struct stream_tls){session_send, session_receive, session_holds, session_close};
	if (set_up(session, fd)) {
		session_close(&session->tls);
		return -ENOMEM;
	}
	*out = &session->tls;
	return 0;
}

/* What has failed is the connection, or the peer. */
static int judge(int err)
{
	switch (err) {
	case GNUTLS_E_PUSH_ERROR:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PREMATURE_TERMINATION:
		return -ENOTCONN;
	default:
		return -EACCES;
	}
}

static int session_greet(struct stream_tls *tls, char cause[TLS_CAUSE])
{
	struct session *session = (struct session *)tls;
	int err = gnutls_handshake(session->session);

	if (!err)
		return 0;
	if (!gnutls_error_is_fatal(err))
		return gnutls_record_get_direction(session->session) ? -EINTR : -EAGAIN;
	snprintf(cause, TLS_CAUSE, "%s", gnutls_strerror(err));
	return judge(err);
}

extern const struct tls_module uf_migrate_tls_module;
__attribute__((visibility("default"))) const struct tls_module uf_migrate_tls_module = {
	.version = UF_VERSION,
	.open = settings_open,
	.close = settings_close,
	.begin = session_begin,
	.greet = session_greet,
};
