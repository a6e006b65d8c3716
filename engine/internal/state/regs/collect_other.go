//go:build !amd64

package regs

import (
	"errors"
	"fmt"

	"stasis.example/engine/internal/collect"
	"stasis.example/engine/internal/snapshot"
)

func registers(*collect.Thread) (snapshot.Registers, error) {
	return nil, fmt.Errorf("registers of this architecture: %w", errors.ErrUnsupported)
}
