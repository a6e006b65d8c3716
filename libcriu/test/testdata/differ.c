/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Sends mutated responses to two libraries and compares what criu_check() makes of them.
 *
 *	differ REFERENCE OURS ROUNDS
 *
 * Notifications are left out: a malformed one crashes the reference. A boolean that is not a varint is not understood by
 * ours, while protobuf-c takes any wire type for one: nothing else may be judged differently.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "internal.h"

struct library {
	void (*set_fd)(void *, int);
	int (*check)(void *);
	void *opts;
};

static void load(struct library *l, const char *path)
{
	void *h = dlmopen(LM_ID_NEWLM, path, RTLD_NOW);
	int (*init)(void **);

	if (!h) {
		fprintf(stderr, "%s\n", dlerror());
		exit(2);
	}
	*(void **)&init = dlsym(h, "criu_local_init_opts");
	*(void **)&l->set_fd = dlsym(h, "criu_local_set_service_fd");
	*(void **)&l->check = dlsym(h, "criu_local_check");
	init(&l->opts);
}

static int ask(struct library *l, const uint8_t *answer, size_t len)
{
	int sk[2], ret;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) || send(sk[1], answer, len, 0) != (ssize_t)len)
		abort();
	shutdown(sk[1], SHUT_WR);
	l->set_fd(l->opts, sk[0]);
	ret = l->check(l->opts);
	close(sk[1]);
	return ret;
}

static const char *const seeds[] = {
	"\x08\x03\x10\x01",
	"\x08\x03\x10\x00\x38\x11\x4a\x0cno such file",
	"\x08\x03\x10\x01\x1a\x02\x08\x01\x22\x03\x08\xd2\x09\x32\x06\x0a\x01x\x10\x05\x18\x07",
	"\x08\x03\x10\x01\x42\x04\x08\x01\x18\x01\x52\x0c\x08\x04\x10\x02\x1a\x02gi\x20\x01\x28\x01\x58\x09",
	"\x08\x03\x10\x01\xf2\x06\x03" "abc\xf8\x06\x01\xfd\x06\x01\x02\x03\x04\xf9\x06\x01\x02\x03\x04\x05\x06\x07\x08",
};

int main(int argc, char **argv)
{
	struct library ref, ours;
	long rounds = argc > 3 ? atol(argv[3]) : 1000, compared = 0, accepted = 0, differ = 0, stricter = 0;

	load(&ref, argv[1]);
	load(&ours, argv[2]);
	srandom(1);
	for (long i = 0; i < rounds; i++) {
		const char *seed = seeds[random() % (long)(sizeof(seeds) / sizeof(seeds[0]))];
		uint8_t msg[80], copy[81];
		size_t len = strlen(seed);
		struct response r;
		int a, b;

		/* The seeds have no NUL but where a field may be left out. */
		memcpy(msg, seed, len);
		for (long n = random() % 4; n >= 0; n--) {
			size_t at = (size_t)random() % len;

			switch (random() % 4) {
			case 0:
				msg[at] = (uint8_t)random();
				break;
			case 1:
				msg[at] ^= (uint8_t)(1 << random() % 8);
				break;
			case 2:
				memmove(msg + at, msg + at + 1, len - at - 1);
				if (len > 1)
					len--;
				break;
			case 3:
				if (len < sizeof(msg)) {
					memmove(msg + at + 1, msg + at, len - at);
					len++;
				}
				break;
			}
		}
		memcpy(copy, msg, len);
		if (decode_response(copy, len, &r) && r.type == REQ_NOTIFY)
			continue;
		a = ask(&ref, msg, len);
		b = ask(&ours, msg, len);
		compared++;
		accepted += b == 0;
		if (a != b && b == -ECOMM) {
			stricter++;
		} else if (a != b) {
			if (++differ <= 20) {
				printf("reference %d, ours %d:", a, b);
				for (size_t j = 0; j < len; j++)
					printf(" %02x", msg[j]);
				printf("\n");
			}
		}
	}
	printf("%ld responses, %ld good to ours, %ld good to the reference alone, %ld otherwise different\n", compared, accepted,
	       stricter, differ);
	return differ != 0 || stricter * 500 > compared;
}
