package regs

import (
	"encoding/binary"
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image/entry"
)

func encodeAMD64(where string, regs *snapshot.AMD64Registers, clearTID uint64, r *images.Report) *entry.ThreadInfoX86 {
	mode := entry.RegsModeNative
	if regs.Compat {
		mode = entry.RegsModeCompat
	}
	info := &entry.ThreadInfoX86{
		ClearTidAddr: clearTID,
		GPRegs: entry.UserX86Regs{
			R15: regs.R15, R14: regs.R14, R13: regs.R13, R12: regs.R12, Bp: regs.BP, Bx: regs.BX, R11: regs.R11, R10: regs.R10,
			R9: regs.R9, R8: regs.R8, Ax: regs.AX, Cx: regs.CX, Dx: regs.DX, Si: regs.SI, Di: regs.DI, OrigAx: regs.OrigAX,
			IP: regs.IP, CS: regs.CS, Flags: regs.Flags, Sp: regs.SP, Ss: regs.SS, FSBase: regs.FSBase, GsBase: regs.GSBase,
			Ds: regs.DS, Es: regs.ES, FS: regs.FS, Gs: regs.GS, Mode: &mode,
		},
		FPRegs: encodeXState(where, &regs.FPU, r),
	}
	for _, d := range regs.TLS {
		info.TLS = append(info.TLS, entry.UserDesc{
			EntryNumber: d.Entry, BaseAddr: d.Base, Limit: d.Limit, Seg32bit: d.Seg32Bit, ContentsH: d.ContentsHigh, ContentsL: d.ContentsLow,
			ReadExecOnly: d.ReadExecOnly, LimitInPages: d.LimitInPages, SegNotPresent: d.NotPresent, Usable: d.Usable,
		})
	}
	return info
}

func encodeXState(where string, x *snapshot.XState, r *images.Report) entry.UserX86FPRegs {
	e := entry.UserX86FPRegs{
		Cwd: uint32(x.ControlWord), Swd: uint32(x.StatusWord), Twd: uint32(x.TagWord), Fop: uint32(x.Opcode), Rip: x.LastIP, Rdp: x.LastDP,
		Mxcsr: x.MXCSR, MxcsrMask: x.MXCSRMask, STSpace: words32(x.ST[:]), XMMSpace: words32(x.XMM[:]),
	}
	if !x.Extended {
		return e
	}
	xs := &entry.UserX86Xsave{XstateBv: x.Used}
	e.Xsave = xs
	for _, c := range x.Components {
		switch c.Number {
		case snapshot.XAVX:
			xs.YMMHSpace = words32(c.Data)
		case snapshot.XBndRegs:
			xs.BndregState = words64(c.Data)
		case snapshot.XBndCSR:
			xs.BndcsrState = words64(c.Data)
		case snapshot.XOpmask:
			xs.OpmaskReg = words64(c.Data)
		case snapshot.XZMMHi256:
			xs.ZMMUpper = words64(c.Data)
		case snapshot.XHi16ZMM:
			xs.Hi16ZMM = words64(c.Data)
		case snapshot.XPKRU:
			xs.PKRU = words32(c.Data)
		case snapshot.XCETUser:
			if w := words64(c.Data); len(w) == 2 {
				xs.CET = &entry.UserX86CET{CET: w[0], Ssp: w[1]}
			}
		default:
			if x.Used>>c.Number&1 != 0 {
				// AMX for one: tiles are components 17 and 18.
				r.Unsupported(where, "extended state %d of the processor is in use, and images have no place for it", c.Number)
			}
		}
	}
	return e
}

func decodeAMD64(where string, info *entry.ThreadInfoX86, r *images.Report) *snapshot.AMD64Registers {
	g := &info.GPRegs
	r.Unknown(where, info, info.Unknown)
	r.Unknown(where, g, g.Unknown)
	regs := &snapshot.AMD64Registers{
		R15: g.R15, R14: g.R14, R13: g.R13, R12: g.R12, BP: g.Bp, BX: g.Bx, R11: g.R11, R10: g.R10, R9: g.R9, R8: g.R8,
		AX: g.Ax, CX: g.Cx, DX: g.Dx, SI: g.Si, DI: g.Di, OrigAX: g.OrigAx, IP: g.IP, CS: g.CS, Flags: g.Flags, SP: g.Sp, SS: g.Ss,
		FSBase: g.FSBase, GSBase: g.GsBase, DS: g.Ds, ES: g.Es, FS: g.FS, GS: g.Gs,
		Compat: g.GetMode() == entry.RegsModeCompat,
		FPU:    decodeXState(where, &info.FPRegs, r),
	}
	if regs.Compat {
		r.Unsupported(where, "it is a 32-bit thread")
	}
	if len(info.TLS) > 3 {
		r.Damaged(where, "%d TLS slots, there are 3", len(info.TLS))
	}
	for _, d := range head(info.TLS, 3) {
		regs.TLS = append(regs.TLS, snapshot.TLSDescriptor{
			Entry: d.EntryNumber, Base: d.BaseAddr, Limit: d.Limit, Seg32Bit: d.Seg32bit, ContentsHigh: d.ContentsH, ContentsLow: d.ContentsL,
			ReadExecOnly: d.ReadExecOnly, LimitInPages: d.LimitInPages, NotPresent: d.SegNotPresent, Usable: d.Usable,
		})
	}
	return regs
}

func head[T any](s []T, n int) []T { return s[:min(len(s), n)] }

func decodeXState(where string, e *entry.UserX86FPRegs, r *images.Report) snapshot.XState {
	r.Unknown(where, e, e.Unknown)
	x := snapshot.XState{LastIP: e.Rip, LastDP: e.Rdp, MXCSR: e.Mxcsr, MXCSRMask: e.MxcsrMask}
	for _, w := range []struct {
		name string
		from uint32
		to   *uint16
	}{{"cwd", e.Cwd, &x.ControlWord}, {"swd", e.Swd, &x.StatusWord}, {"twd", e.Twd, &x.TagWord}, {"fop", e.Fop, &x.Opcode}} {
		if w.from > math.MaxUint16 {
			r.Damaged(where, "floating-point register %s is %#x; it has 16 bits", w.name, w.from)
		}
		*w.to = uint16(w.from)
	}
	if len(e.STSpace) != len(x.ST)/4 || len(e.XMMSpace) != len(x.XMM)/4 {
		r.Damaged(where, "%d and %d words of floating-point registers, want %d and %d", len(e.STSpace), len(e.XMMSpace), len(x.ST)/4, len(x.XMM)/4)
	}
	copy(x.ST[:], bytes32(e.STSpace))
	copy(x.XMM[:], bytes32(e.XMMSpace))
	xs := e.Xsave
	if xs == nil {
		return x
	}
	r.Unknown(where, xs, xs.Unknown)
	x.Extended, x.Used = true, xs.XstateBv
	add := func(number, size int, data []byte) {
		if len(data) == 0 {
			return
		}
		if len(data) != size {
			r.Damaged(where, "extended state %d has %d bytes, want %d", number, len(data), size)
			return
		}
		x.Components = append(x.Components, snapshot.XComponent{Number: number, Data: data})
	}
	add(snapshot.XAVX, 256, bytes32(xs.YMMHSpace))
	add(snapshot.XBndRegs, 64, bytes64(xs.BndregState))
	add(snapshot.XBndCSR, 16, bytes64(xs.BndcsrState))
	add(snapshot.XOpmask, 64, bytes64(xs.OpmaskReg))
	add(snapshot.XZMMHi256, 512, bytes64(xs.ZMMUpper))
	add(snapshot.XHi16ZMM, 1024, bytes64(xs.Hi16ZMM))
	if len(xs.PKRU) == 2 || len(xs.PKRU) == 1 {
		add(snapshot.XPKRU, 4*len(xs.PKRU), bytes32(xs.PKRU))
	} else if len(xs.PKRU) > 0 {
		r.Damaged(where, "extended state %d has %d words, want 1 or 2", snapshot.XPKRU, len(xs.PKRU))
	}
	if c := xs.CET; c != nil {
		if c.CET != 0 || c.Ssp != 0 {
			r.Unsupported(where, "the thread has a shadow stack")
		}
		add(snapshot.XCETUser, 16, bytes64([]uint64{c.CET, c.Ssp}))
	}
	for n := 2; n < 63; n++ {
		if x.Used>>n&1 != 0 && x.Component(n) == nil {
			r.Damaged(where, "extended state %d was in use and is not there", n)
		}
	}
	if x.Used>>63 != 0 {
		r.Damaged(where, "xstate_bv %#x has its reserved bit set", x.Used)
	}
	return x
}

func words32(b []byte) []uint32 {
	w := make([]uint32, len(b)/4)
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return w
}

func words64(b []byte) []uint64 {
	w := make([]uint64, len(b)/8)
	for i := range w {
		w[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return w
}

func bytes32(w []uint32) []byte {
	b := make([]byte, 0, 4*len(w))
	for _, v := range w {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}

func bytes64(w []uint64) []byte {
	b := make([]byte, 0, 8*len(w))
	for _, v := range w {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}
