// Package creds has credentials, limits, and what else a process may do.
package creds
