/* SPDX-License-Identifier: Apache-2.0 */

/* The response decoder under libFuzzer: whatever a peer sends, strings lie in the buffer and nothing else is touched. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static void inside(const char *s, const uint8_t *buf, size_t len)
{
	if (!s)
		return;
	if ((const uint8_t *)s < buf || (const uint8_t *)s > buf + len || strlen(s) > len)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	uint8_t *buf = malloc(len + 1);
	struct response r;

	if (!buf)
		abort();
	if (len)
		memcpy(buf, data, len);
	if (decode_response(buf, len, &r)) {
		inside(r.notify.script, buf, len);
		inside(r.errmsg, buf, len);
		inside(r.gitid, buf, len);
	}
	free(buf);
	return 0;
}
