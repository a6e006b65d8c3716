// Package tty is the state "terminals of a shell job". In images the opened terminals are entries of type TTY in files.img, what
// all files of a terminal have in common is in tty-info.img, and what was typed and not read in tty-data.img.
//
// Only the terminal that the restored processes will share with whoever restores them can be restored so far, by its own name or as
// /dev/tty, and those that are handed in (--external, --inherit-fd); package plan refuses all others, pseudoterminals with both ends
// in the tree among them.
//
//   - Collect: settings and size with ioctls on an end that the engine has taken; session and foreground group from stat.
//   - Apply: the engine's own terminal is opened again through /proc/self/fd. The job's settings are put back: an editor goes on
//     where the shell has its own settings by now. The job becomes the foreground one.
package tty

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// Encode writes terminals and their files.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	for e, f := range to.FilesOf(from, entry.FDTypeTTY) {
		o := f.Object.(*snapshot.TTY)
		e.TTY = &entry.TTYFile{ID: e.ID, TTYInfoID: o.Terminal, Flags: f.Flags, Fown: images.Fown(f)}
		if o.Node != 0 {
			e.TTY.RegfID = new(uint32(o.Node))
		}
	}
	for _, t := range from.Terminals {
		to.Terminals = append(to.Terminals, encodeTerminal(t))
		if len(t.Unread) > 0 {
			to.Typed = append(to.Typed, entry.TTYData{TTYID: t.ID, Data: t.Unread})
		}
	}
}

func encodeTerminal(t *snapshot.Terminal) entry.TTYInfo {
	e := entry.TTYInfo{
		ID: t.ID, Type: entry.TTYType(t.Kind), Locked: t.Locked, Exclusive: t.Exclusive, PacketMode: t.PacketMode,
		SID: uint32(t.Session), Pgrp: uint32(t.Foreground), Rdev: t.Device, Dev: t.FSDevice, UID: t.UID, GID: t.GID,
		Termios: encodeTermios(t.Settings), TermiosLocked: encodeTermios(t.Lock),
	}
	if w := t.Window; w != nil {
		e.Winsize = &entry.Winsize{WsRow: w.Rows, WsCol: w.Cols, WsXpixel: w.XPixel, WsYpixel: w.YPixel}
	}
	if t.Index != nil {
		e.PTY = &entry.TTYPty{Index: *t.Index}
	}
	return e
}

func encodeTermios(t *snapshot.Termios) *entry.Termios {
	if t == nil {
		return nil
	}
	return &entry.Termios{
		CIflag: t.Iflag, COflag: t.Oflag, CCflag: t.Cflag, CLflag: t.Lflag, CLine: t.Line, CIspeed: t.Ispeed, COspeed: t.Ospeed, CCc: t.CC,
	}
}

// Decode reads terminals and their files.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	name := image.TTYInfo.File(0)
	terminals := make(map[uint32]*snapshot.Terminal)
	for i := range from.Terminals {
		e := &from.Terminals[i]
		r.Unknown(name, e, e.Unknown)
		if terminals[e.ID] != nil {
			r.Damaged(name, "terminal %d occurs twice", e.ID)
			continue
		}
		t := decodeTerminal(e)
		if t.Kind < snapshot.PTY || t.Kind > snapshot.SerialTTY {
			r.Unsupported(name, "terminal %d is of type %v", e.ID, e.Type)
		}
		terminals[e.ID] = t
		to.Terminals = append(to.Terminals, t)
	}
	for i := range from.Typed {
		e := &from.Typed[i]
		if t := terminals[e.TTYID]; t != nil {
			t.Unread = append(t.Unread, e.Data...)
		} else {
			r.Damaged(image.TTYData.File(0), "terminal %d is not in %s", e.TTYID, name)
		}
	}
	for e, f := range from.FilesOf(to, entry.FDTypeTTY) {
		if !images.Filled(e, e.TTY, func(m *entry.TTYFile) uint32 { return m.ID }, r) {
			continue
		}
		where := images.FileName(e.ID)
		r.Unknown(where, e.TTY, e.TTY.Unknown)
		images.DecodeFile(e, f, e.TTY.Flags, &e.TTY.Fown, r)
		f.Object = &snapshot.TTY{Terminal: e.TTY.TTYInfoID, Node: snapshot.FileID(e.TTY.GetRegfID())}
		if terminals[e.TTY.TTYInfoID] == nil {
			r.Damaged(where, "terminal %d is not in %s", e.TTY.TTYInfoID, name)
		}
		if e.TTY.RegfID != nil {
			if node := from.File(*e.TTY.RegfID); node == nil || node.Reg == nil {
				r.Damaged(where, "the name of the terminal, file %d, is not in %s", *e.TTY.RegfID, image.Files.File(0))
			}
		}
	}
}

func decodeTerminal(e *entry.TTYInfo) *snapshot.Terminal {
	t := &snapshot.Terminal{
		ID: e.ID, Kind: snapshot.TerminalKind(e.Type), Device: e.Rdev, FSDevice: e.Dev, Locked: e.Locked, Exclusive: e.Exclusive,
		PacketMode: e.PacketMode, Session: int(int32(e.SID)), Foreground: int(int32(e.Pgrp)), UID: e.UID, GID: e.GID,
		Settings: decodeTermios(e.Termios), Lock: decodeTermios(e.TermiosLocked),
	}
	if w := e.Winsize; w != nil {
		t.Window = &snapshot.Window{Rows: w.WsRow, Cols: w.WsCol, XPixel: w.WsXpixel, YPixel: w.WsYpixel}
	}
	if e.PTY != nil {
		t.Index = &e.PTY.Index
	}
	return t
}

// controlChars is how many control characters the kernel has.
const controlChars = 19

// pack returns control characters as images have them: in as many words as there are characters, but four to a word. (CRIU copies
// memory there; what it has behind the characters is of no use.)
func pack(chars [controlChars]byte) []uint32 {
	words := make([]uint32, controlChars)
	for i, c := range chars {
		words[i/4] |= uint32(c) << (8 * (i % 4))
	}
	return words
}

func unpack(words []uint32) (chars [controlChars]byte) {
	for i := range chars {
		if i/4 < len(words) {
			chars[i] = byte(words[i/4] >> (8 * (i % 4)))
		}
	}
	return chars
}

func decodeTermios(e *entry.Termios) *snapshot.Termios {
	if e == nil {
		return nil
	}
	return &snapshot.Termios{
		Iflag: e.CIflag, Oflag: e.COflag, Cflag: e.CCflag, Lflag: e.CLflag, Line: e.CLine, Ispeed: e.CIspeed, Ospeed: e.COspeed, CC: e.CCc,
	}
}
