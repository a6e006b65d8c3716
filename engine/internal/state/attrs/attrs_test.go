package attrs

import "testing"

// CRIU's dump of a process with ADDR_NO_RANDOMIZE and SHORT_INODE, of which /proc says 01040000, has 1040000.
func TestDigits(t *testing.T) {
	for from, want := range map[uint32]uint32{0: 0, 40000: 0x40000, 1040000: 0x1040000, 4294967295: 4294967295} {
		if got := digits(from); got != want {
			t.Errorf("digits(%d) = %#x, want %#x", from, got, want)
		}
	}
}

func TestDecimal(t *testing.T) {
	for from, want := range map[uint32]uint32{0: 0, 0x40000: 40000, 0x1040000: 1040000, 0x400a: 0} {
		if got := decimal(from); got != want {
			t.Errorf("decimal(%#x) = %d, want %d", from, got, want)
		}
	}
}
