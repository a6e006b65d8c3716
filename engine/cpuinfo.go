//go:build amd64

package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"

	"golang.org/x/sys/unix"

	"stasis.example/criu/rpc"
	"stasis.example/image"
	"stasis.example/image/entry"
	"stasis.example/internal/linux"
)

// What of a CPU is compared, as the RPC's cpu_cap has it.
const (
	capFPU   = 1 << 0 // the layout of the floating point state
	capCPU   = 1 << 1 // everything, one for one
	capIns   = 1 << 2 // the instructions that programs use
	capImage = 1 << 3 // a dump writes cpuinfo.img, a restore compares with it

	capDefault = capFPU | capIns
)

// The words of capabilities in cpuinfo.img, version 2: CRIU's order, which is that of an older Linux. All others are zero, or a
// system's own idea of a CPU.
const (
	word1EDX        = 0
	word80000001EDX = 1
	wordLinux       = 3
	word1ECX        = 4
	word80000001ECX = 6
	word7EBX        = 9
	wordD1EAX       = 10
	word7ECX        = 11
	word80000008EBX = 13
	word6EAX        = 14
	word8000000AEDX = 15
	word7EDX        = 18

	wordsV1, wordsV2 = 12, 19
)

// instructions are the bits of each word that stand for instructions which programs use.
func instructions() map[int]uint32 {
	bits := func(list ...int) (mask uint32) {
		for _, b := range list {
			mask |= 1 << b
		}
		return mask
	}
	return map[int]uint32{
		word1EDX:        bits(0, 4, 8, 15, 19, 23, 24, 25, 26),                                              // FPU TSC CX8 CMOV CLFLUSH MMX FXSR SSE SSE2
		word80000001EDX: bits(11, 22, 25, 27, 30, 31),                                                       // SYSCALL MMXEXT FXSR_OPT RDTSCP 3DNOW
		word1ECX:        bits(0, 1, 3, 9, 12, 13, 19, 20, 22, 23, 25, 26, 28, 29, 30),                       // SSE3 PCLMUL MWAIT SSSE3 FMA CX16 SSE4 MOVBE POPCNT AES XSAVE AVX F16C RDRAND
		word80000001ECX: bits(0, 5, 6, 8, 11, 16, 21),                                                       // LAHF ABM SSE4A PREFETCHW XOP FMA4 TBM
		word7EBX:        bits(0, 3, 4, 5, 8, 9, 11, 14, 16, 17, 18, 19, 21, 23, 24, 26, 27, 28, 29, 30, 31), // FSGSBASE BMI HLE AVX2 ERMS RTM MPX AVX512 RDSEED ADX CLFLUSHOPT CLWB SHA
		wordD1EAX:       bits(0, 1, 2),                                                                      // XSAVEOPT XSAVEC XGETBV1
		word7ECX:        bits(1, 6, 8, 9, 10, 11, 12, 14, 22, 27, 28),                                       // AVX512 GFNI VAES VPCLMUL RDPID MOVDIR
		word7EDX:        bits(2, 3, 8, 22, 23, 24, 25),                                                      // AVX512 AMX
	}
}

// cpuinfo answers a request to write cpuinfo.img, or to compare this CPU with it.
func (e *Engine) cpuinfo(typ rpc.ReqType, opts *rpc.Opts) (*rpc.Resp, error) {
	if opts == nil {
		return nil, fmt.Errorf("cpuinfo without options: %w", unix.EBADRQC)
	}
	dirs, err := e.openDirs(opts)
	if err != nil {
		return nil, err
	}
	defer dirs.close()
	if typ == rpc.ReqCPUInfoDump {
		err = writeCPUInfo(dirs.images)
	} else {
		caps := uint32(capDefault)
		if opts.CPUCap != nil && *opts.CPUCap != math.MaxUint32 {
			caps = *opts.CPUCap
		}
		err = compareCPUInfo(dirs.images, caps)
	}
	if err != nil {
		dirs.log.add(logError, "cpuinfo", "%v", err)
		return nil, err
	}
	return &rpc.Resp{Type: typ, Success: true}, nil
}

// asksForCPUInfo tells whether a dump is to write cpuinfo.img, or a restore to compare with it. Who says nothing does not.
func asksForCPUInfo(opts *rpc.Opts) bool {
	return opts.CPUCap != nil && *opts.CPUCap != math.MaxUint32 && *opts.CPUCap&capImage != 0
}

func writeCPUInfo(dir image.Dir) error {
	return image.WriteAll(dir, image.CPUInfo, 0, &entry.CPUInfo{X86Entry: []entry.CPUInfoX86{*thisCPU()}})
}

// thisCPU describes the CPU, in CRIU's words.
func thisCPU() *entry.CPUInfoX86 {
	leaf := func(number, sub uint32) (a, b, c, d uint32) {
		if most, _, _, _ := linux.CPUID(number&0xffff0000, 0); number > most {
			return 0, 0, 0, 0
		}
		return linux.CPUID(number, sub)
	}
	var vendor [12]byte
	_, b, c, d := linux.CPUID(0, 0)
	binary.LittleEndian.PutUint32(vendor[0:], b)
	binary.LittleEndian.PutUint32(vendor[4:], d)
	binary.LittleEndian.PutUint32(vendor[8:], c)
	cpu := &entry.CPUInfoX86{CapabilityVer: 2, Capability: make([]uint32, wordsV2), ModelID: new(modelName(leaf))}
	switch string(vendor[:]) {
	case "GenuineIntel":
		cpu.VendorID = entry.CPUVendorIntel
	case "AuthenticAMD":
		cpu.VendorID = entry.CPUVendorAMD
	}
	w := cpu.Capability
	a, _, c, d := leaf(1, 0)
	cpu.CPUFamily, cpu.Model, cpu.Stepping = a>>8&0xf, a>>4&0xf, a&0xf
	if cpu.CPUFamily == 0xf {
		cpu.CPUFamily += a >> 20 & 0xff
	}
	if cpu.CPUFamily >= 6 {
		cpu.Model |= a >> 16 & 0xf << 4
	}
	w[word1EDX], w[word1ECX] = d, c
	_, _, w[word80000001ECX], w[word80000001EDX] = leaf(0x80000001, 0)
	_, w[word7EBX], w[word7ECX], w[word7EDX] = leaf(7, 0)
	w[wordD1EAX], _, _, _ = leaf(0xd, 1)
	_, w[word80000008EBX], _, _ = leaf(0x80000008, 0)
	w[word6EAX], _, _, _ = leaf(6, 0)
	_, _, _, w[word8000000AEDX] = leaf(0x8000000a, 0)
	const repGood, nopl, cpuid = 16, 20, 25 // Linux' own: what every 64-bit CPU has
	w[wordLinux] = 1<<repGood | 1<<nopl | 1<<cpuid

	mask, size, most, _ := leaf(0xd, 0)
	const components = 0x2fd // what CRIU counts: FPU, AVX, MPX, AVX-512, protection keys; SSE goes without saying
	cpu.XfeaturesMask, cpu.XsaveSize, cpu.XsaveSizeMax = new(uint64(mask&components)), &size, &most
	return cpu
}

func modelName(leaf func(number, sub uint32) (a, b, c, d uint32)) string {
	var name []byte
	for n := uint32(0x80000002); n <= 0x80000004; n++ {
		a, b, c, d := leaf(n, 0)
		for _, word := range []uint32{a, b, c, d} {
			name = binary.LittleEndian.AppendUint32(name, word)
		}
	}
	text, _, _ := strings.Cut(string(name), "\x00")
	return strings.TrimSpace(text)
}

// compareCPUInfo compares this CPU with the one that cpuinfo.img is of. Its error, which is an ENOTSUP, names every difference
// that matters.
func compareCPUInfo(dir image.Dir, caps uint32) error {
	var info entry.CPUInfo
	if err := image.ReadOne(dir, image.CPUInfo, 0, &info); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the images do not say of which CPU they are: a cpuinfo dump writes that, or a dump with cpu_cap: %w", err)
	} else if err != nil {
		return err
	}
	if len(info.X86Entry) != 1 {
		return fmt.Errorf("cpuinfo.img is not of an x86 CPU, as this one is: %w", unix.ENOTSUP)
	}
	was, is := &info.X86Entry[0], thisCPU()
	words := map[uint32]int{1: wordsV1, 2: wordsV2}[was.CapabilityVer]
	switch {
	case words == 0:
		return fmt.Errorf("cpuinfo.img has capabilities of version %d, which nobody knows: %w", was.CapabilityVer, unix.ENOTSUP)
	case words != len(was.Capability):
		return fmt.Errorf("cpuinfo.img is damaged: %d words of capabilities instead of %d: %w", len(was.Capability), words, unix.EINVAL)
	}
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if caps&(capFPU|capCPU) != 0 {
		compareFPU(was, is, add)
	}
	for i, had := range was.Capability {
		if lost := had & instructions()[i] &^ is.Capability[i]; lost != 0 && caps&(capIns|capCPU) != 0 {
			add("this CPU lacks instructions that the images were made with (word %d: %#x)", i, lost)
		} else if compared := i != wordLinux && i != 7 && i != 8; had != is.Capability[i] && caps&capCPU != 0 && compared {
			add("this CPU is not like that of the images (word %d: %#x and %#x)", i, is.Capability[i], had)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", errors.Join(errs...), unix.ENOTSUP)
}

// compareFPU compares the layout of the floating point state. Images of older dumps have nothing of it.
func compareFPU(was, is *entry.CPUInfoX86, add func(string, ...any)) {
	if was.XfeaturesMask != nil && *was.XfeaturesMask&^*is.XfeaturesMask != 0 {
		add("this CPU lacks registers that the images were made with (XSAVE components %#x)", *was.XfeaturesMask&^*is.XfeaturesMask)
	}
	if was.XsaveSize != nil && *was.XsaveSize != *is.XsaveSize {
		add("the registers of the images take %d bytes, this CPU's %d", *was.XsaveSize, *is.XsaveSize)
	}
	if was.XsaveSizeMax != nil && *was.XsaveSizeMax != *is.XsaveSizeMax {
		add("all registers of the images' CPU take %d bytes, this CPU's %d", *was.XsaveSizeMax, *is.XsaveSizeMax)
	}
}
