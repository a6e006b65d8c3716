package regs

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

func encodeARM64(regs *snapshot.ARM64Registers, clearTID uint64) *entry.ThreadInfoAArch64 {
	info := &entry.ThreadInfoAArch64{
		ClearTidAddr: clearTID,
		TLS:          regs.TLS,
		GPRegs:       entry.UserAArch64Regs{Regs: append([]uint64{}, regs.X[:]...), Sp: regs.SP, Pc: regs.PC, Pstate: regs.PState},
		FPSIMD:       entry.UserAArch64FPSIMD{Vregs: append([]uint64{}, regs.V[:]...), Fpsr: regs.FPSR, Fpcr: regs.FPCR},
	}
	if k := regs.PAC; k != nil {
		info.PacKeys = &entry.PACKeys{}
		if a := k.Address; a != nil {
			info.PacKeys.PacAddressKeys = &entry.PACAddressKeys{
				ApiakeyLo: a.IA[0], ApiakeyHi: a.IA[1], ApibkeyLo: a.IB[0], ApibkeyHi: a.IB[1],
				ApdakeyLo: a.DA[0], ApdakeyHi: a.DA[1], ApdbkeyLo: a.DB[0], ApdbkeyHi: a.DB[1], PacEnabledKey: a.Enabled,
			}
		}
		if g := k.Generic; g != nil {
			info.PacKeys.PacGenericKeys = &entry.PACGenericKeys{ApgakeyLo: g[0], ApgakeyHi: g[1]}
		}
	}
	return info
}

func decodeARM64(where string, info *entry.ThreadInfoAArch64, r *images.Report) *snapshot.ARM64Registers {
	r.Unknown(where, info, info.Unknown)
	r.Unknown(where, &info.GPRegs, info.GPRegs.Unknown)
	r.Unknown(where, &info.FPSIMD, info.FPSIMD.Unknown)
	regs := &snapshot.ARM64Registers{
		SP: info.GPRegs.Sp, PC: info.GPRegs.Pc, PState: info.GPRegs.Pstate, TLS: info.TLS, FPSR: info.FPSIMD.Fpsr, FPCR: info.FPSIMD.Fpcr,
	}
	if len(info.GPRegs.Regs) != len(regs.X) || len(info.FPSIMD.Vregs) != len(regs.V) {
		r.Damaged(where, "%d general and %d vector registers, want %d and %d halves", len(info.GPRegs.Regs), len(info.FPSIMD.Vregs), len(regs.X), len(regs.V))
	}
	copy(regs.X[:], info.GPRegs.Regs)
	copy(regs.V[:], info.FPSIMD.Vregs)
	if k := info.PacKeys; k != nil {
		regs.PAC = &snapshot.PACKeys{}
		if a := k.PacAddressKeys; a != nil {
			regs.PAC.Address = &snapshot.PACAddressKeys{
				IA: [2]uint64{a.ApiakeyLo, a.ApiakeyHi}, IB: [2]uint64{a.ApibkeyLo, a.ApibkeyHi},
				DA: [2]uint64{a.ApdakeyLo, a.ApdakeyHi}, DB: [2]uint64{a.ApdbkeyLo, a.ApdbkeyHi}, Enabled: a.PacEnabledKey,
			}
		}
		if g := k.PacGenericKeys; g != nil {
			regs.PAC.Generic = &[2]uint64{g.ApgakeyLo, g.ApgakeyHi}
		}
	}
	return regs
}
