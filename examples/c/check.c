/* Asks CRIU whether this kernel has what it needs, what it is, and what it can do. */
#include <stdio.h>

#include <criu/criu.h>

int main(void)
{
	struct criu_feature_check features = { .mem_track = true, .lazy_pages = true };
	int ret;

	/* The one action that needs no criu_init_opts(). */
	ret = criu_check();
	printf("check: %s\n", ret == 0 ? "good" : "not good");

	if (criu_init_opts() < 0)
		return 1;
	ret = criu_get_version();
	if (ret < 0) {
		fprintf(stderr, "no version: %d %s\n", ret, criu_get_errmsg());
		return 1;
	}
	printf("version: %d.%d.%d\n", ret / 10000, ret / 100 % 100, ret % 100);
	printf("at least 3.15: %s\n", criu_check_version(31500) == 1 ? "yes" : "no");

	ret = criu_feature_check(&features, sizeof(features));
	if (ret == 0)
		printf("memory tracking: %d, lazy pages: %d\n", features.mem_track, features.lazy_pages);
	criu_free_opts();
	return ret < 0;
}
