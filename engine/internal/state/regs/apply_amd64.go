package regs

import (
	"fmt"

	"stasis.example/engine/internal/apply"
	"stasis.example/engine/internal/ptrace"
	"stasis.example/engine/internal/snapshot"
)

// Apply says with what a thread goes on: registers, extended state and mask. It is the last that is said of it.
func Apply(th *apply.Thread) error {
	r, ok := th.Registers.(*snapshot.AMD64Registers)
	if !ok {
		return fmt.Errorf("%s: its registers are not of this machine", th.Where())
	}
	example, err := th.Remote.XState() // as long as the kernel wants it
	if err != nil {
		return err
	}
	t := th.Task.Tree
	t.XLayout = Layout(example, t.XLayout)
	xstate, err := t.XLayout.Bytes(&r.FPU)
	if err != nil {
		return fmt.Errorf("%s: %w", th.Where(), err)
	}
	th.Remote.Become(ptrace.Regs{
		R15: r.R15, R14: r.R14, R13: r.R13, R12: r.R12, Rbp: r.BP, Rbx: r.BX, R11: r.R11, R10: r.R10, R9: r.R9, R8: r.R8,
		Rax: r.AX, Rcx: r.CX, Rdx: r.DX, Rsi: r.SI, Rdi: r.DI, Orig_rax: ^uint64(0), Rip: r.IP, Cs: r.CS, Eflags: r.Flags,
		Rsp: r.SP, Ss: r.SS, Fs_base: r.FSBase, Gs_base: r.GSBase, Ds: r.DS, Es: r.ES, Fs: r.FS, Gs: r.GS,
	}, uint64(th.Mask), xstate)
	return nil
}
