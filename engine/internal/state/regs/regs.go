// Package regs is the state "registers": general, floating-point and vector ones. In images it is thread_info of core-TID.img.
//
//   - Collect takes them with PTRACE_GETREGSET before anything is run in the thread, and sets
//     up a system call that was interrupted to be made again: -ERESTARTSYS, -ERESTARTNOINTR and -ERESTARTNOHAND become the call's
//     number with the instruction pointer back on the instruction, -ERESTART_RESTARTBLOCK becomes -EINTR. The vector state goes
//     through snapshot.XLayout.
//   - Apply is the last thing that is done to a thread before it runs.
package regs

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
)

// Encode writes the registers.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for t := range to.Threads(from) {
		switch regs := t.Registers.(type) {
		case *snapshot.AMD64Registers:
			t.Core.ThreadInfo = encodeAMD64(t.Image, regs, t.ClearTID, r)
		case *snapshot.ARM64Registers:
			t.Core.TiAArch64 = encodeARM64(regs, t.ClearTID)
		default:
			r.Unsupported(t.Image, "registers of an unknown architecture")
		}
	}
}

// Decode reads the registers.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	for t := range from.Threads(to) {
		switch {
		case to.Arch == snapshot.AMD64 && t.Core.ThreadInfo != nil:
			t.Registers = decodeAMD64(t.Image, t.Core.ThreadInfo, r)
			t.ClearTID = t.Core.ThreadInfo.ClearTidAddr
		case to.Arch == snapshot.ARM64 && t.Core.TiAArch64 != nil:
			t.Registers = decodeARM64(t.Image, t.Core.TiAArch64, r)
			t.ClearTID = t.Core.TiAArch64.ClearTidAddr
		case to.Arch != 0:
			r.Damaged(t.Image, "the registers are missing")
		}
	}
}
