/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CRIU_VERSION_H
#define CRIU_VERSION_H

/* The libcriu API that this header and library offer, by CRIU's numbering. What the peer is, criu_get_version() tells. */
#define CRIU_VERSION          "4.3"
#define CRIU_VERSION_MAJOR    4
#define CRIU_VERSION_MINOR    3
#define CRIU_GITID            "0"

#endif
