package remote

import "encoding/binary"

// Stub is a program, as an ELF file, that waits for ever (pause) and has nothing else: what a process is made from.
func Stub() []byte {
	const (
		base       = 0x10000
		headerSize = 64
		segment    = 56 // size of a program header
		code       = headerSize + 2*segment
	)
	// 1: mov $34, %eax; syscall; jmp 1b
	text := []byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}
	b := make([]byte, code, code+len(text))
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
	b = append(b, text...)
	load := b[headerSize:]
	le.PutUint32(load, 1)     // PT_LOAD
	le.PutUint32(load[4:], 5) // readable, executable
	le.PutUint64(load[16:], base)
	le.PutUint64(load[24:], base)
	le.PutUint64(load[32:], uint64(len(b)))
	le.PutUint64(load[40:], uint64(len(b)))
	le.PutUint64(load[48:], pageSize)
	stack := b[headerSize+segment:]
	le.PutUint32(stack, 0x6474e551) // PT_GNU_STACK
	le.PutUint32(stack[4:], 6)      // not executable
	le.PutUint64(stack[48:], 16)
	return b
}
