package stub

import (
	"bytes"
	"encoding/binary"

	"stasis.example/engine/internal/ptrace"
)

// loop runs a table of calls: rbx points to it, r13 counts. An entry is a number, six arguments and the result, eight
// bytes each.
var loop = []byte{
	0x48, 0x8b, 0x03, //       mov (%rbx), %rax
	0x48, 0x8b, 0x7b, 0x08, // mov 8(%rbx), %rdi
	0x48, 0x8b, 0x73, 0x10, // mov 16(%rbx), %rsi
	0x48, 0x8b, 0x53, 0x18, // mov 24(%rbx), %rdx
	0x4c, 0x8b, 0x53, 0x20, // mov 32(%rbx), %r10
	0x4c, 0x8b, 0x43, 0x28, // mov 40(%rbx), %r8
	0x4c, 0x8b, 0x4b, 0x30, // mov 48(%rbx), %r9
	0x0f, 0x05, //             syscall
	0x48, 0x89, 0x43, 0x38, // mov %rax, 56(%rbx)
	0x48, 0x83, 0xc3, 0x40, // add $64, %rbx
	0x49, 0xff, 0xcd, //       dec %r13
	0x75, 0xd6, //             jnz to the beginning
	0xcc, //                   int3
}

// syscallCode is the instruction that makes a system call.
var syscallCode = []byte{0x0f, 0x05}

// FindSyscall returns where in some code the first such instruction is, -1 for nowhere. It may be a part of another one: it is
// executed as what it looks like.
func FindSyscall(code []byte) int { return bytes.Index(code, syscallCode) }

// program returns the program that processes are made from, as an ELF file: one segment at base, its first page in the
// file, the rest of the length memory that is zero. It waits for ever (pause).
func program(base, length uint64) []byte {
	const (
		headerSize = 64
		segment    = 56 // size of a program header
		code       = headerSize + 2*segment
	)
	// 1: mov $34, %eax; syscall; jmp 1b
	text := []byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}
	b := make([]byte, pageSize)
	le := binary.LittleEndian
	copy(b, "\x7fELF\x02\x01\x01") // 64 bits, little-endian, version 1
	le.PutUint16(b[16:], 2)        // ET_EXEC
	le.PutUint16(b[18:], 62)       // EM_X86_64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[24:], base+code) // entry
	le.PutUint64(b[32:], headerSize)
	le.PutUint16(b[52:], headerSize)
	le.PutUint16(b[54:], segment)
	le.PutUint16(b[56:], 2)
	copy(b[code:], text)
	load := b[headerSize:]
	le.PutUint32(load, 1)     // PT_LOAD
	le.PutUint32(load[4:], 7) // readable, writable, executable
	le.PutUint64(load[16:], base)
	le.PutUint64(load[24:], base)
	le.PutUint64(load[32:], pageSize)
	le.PutUint64(load[40:], length)
	le.PutUint64(load[48:], pageSize)
	stack := b[headerSize+segment:]
	le.PutUint32(stack, 0x6474e551) // PT_GNU_STACK
	le.PutUint32(stack[4:], 6)      // not executable
	le.PutUint64(stack[48:], 16)
	return b
}

// tableRegs are the registers that let a thread run a table.
func (th *Thread) tableRegs(code, table uint64, calls int) ptrace.Regs {
	r := th.p.base
	r.Orig_rax = ^uint64(0)
	r.Rip, r.Rbx, r.R13 = code, table, uint64(calls)
	return r
}

// callRegs are the registers that let a thread make one call with the instruction at an address.
func (th *Thread) callRegs(at uint64, c *Call) ptrace.Regs {
	r := th.p.base
	r.Orig_rax = ^uint64(0)
	r.Rip, r.Rax = at, uint64(c.Nr)
	r.Rdi, r.Rsi, r.Rdx, r.R10, r.R8, r.R9 = c.Args[0], c.Args[1], c.Args[2], c.Args[3], c.Args[4], c.Args[5]
	return r
}

func callResult(r *ptrace.Regs) uint64 { return r.Rax }
