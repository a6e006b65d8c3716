// Package signals has dispositions, masks and queued signals.
package signals
