// Package origin is the state "where and when": the version of the images, the namespaces and the control group of whoever
// made the dump, and the clocks. In images it is inventory.img and timens-0.img.
//
//   - Encode sets the version; kinds that write what CRIU cannot read raise it. So this kind is encoded before them.
//   - Collect reads ns/ and cgroup of itself, and the clocks as the tree sees them.
//   - Apply is the engine's: the processes are made in a time namespace in which the clocks go on where they were.
package origin

import (
	"math"

	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
	"stasis.example/image/entry"
)

// ownID is the number that CRIU gives to the things of the program that makes the dump. Those of tasks begin after it.
const ownID = 1

// maxClock is how many seconds a clock can be from its beginning: half of what the kernel counts in nanoseconds (KTIME_SEC_MAX).
const maxClock = math.MaxInt64 / 1_000_000_000 / 2

// Encode writes the inventory.
func Encode(from *snapshot.Tree, to *images.Set, r *images.Report) {
	o := &from.Origin
	n := o.Namespaces
	inv := &to.Inventory
	*inv = entry.Inventory{
		ImgVersion:  image.VersionV1_1,
		FDInfoPerID: new(true),
		NSPerID:     new(true),
		RootIDs: &entry.TaskKobjIDs{
			VMID: ownID, FilesID: ownID, FSID: ownID, SighandID: ownID,
			PIDNSID: nonzero(n.PID), NetNSID: nonzero(n.Net), IPCNSID: nonzero(n.IPC), UtsNSID: nonzero(n.UTS),
			MntNSID: nonzero(n.Mount), UserNSID: nonzero(n.User), CgroupNSID: nonzero(n.Cgroup), TimeNSID: nonzero(n.Time),
		},
		RootCGSet:         nonzero(o.CgroupSet),
		LSMType:           new(lsmType(o.LSM)),
		NetworkLockMethod: o.NetworkLock,
		PluginsEntry:      &entry.Plugins{},
	}
	if o.Uptime != 0 {
		inv.DumpUptime = &o.Uptime
	}
	if o.RunID != "" {
		inv.DumpCRIURunID = &o.RunID
	}
	if o.TCPClose {
		inv.TCPClose = new(true)
	}
	if c := o.Clocks; c != nil {
		to.TimeNS = &entry.TimeNS{
			Monotonic: entry.Timespec{TvSec: uint64(c.Monotonic.Sec), TvNsec: uint64(c.Monotonic.Nsec)},
			Boottime:  entry.Timespec{TvSec: uint64(c.Boottime.Sec), TvNsec: uint64(c.Boottime.Nsec)},
		}
	}
}

func nonzero(id uint32) *uint32 {
	if id == 0 {
		return nil
	}
	return &id
}

func lsmType(l snapshot.LSM) entry.LSMType {
	switch l {
	case snapshot.LSMSELinux:
		return entry.LSMTypeSelinux
	case snapshot.LSMAppArmor:
		return entry.LSMTypeApparmor
	}
	return entry.LSMTypeNoLSM
}

// Decode reads the inventory.
func Decode(from *images.Set, to *snapshot.Tree, r *images.Report) {
	inv := &from.Inventory
	if inv.ImgVersion == 0 {
		return // not there, which the reader has said
	}
	name := image.Inventory.File(0)
	r.Unknown(name, inv, inv.Unknown)
	if !inv.GetFDInfoPerID() {
		r.Unsupported(name, "descriptor tables are named by pid, as CRIU before 1.0 did")
	}
	if p := inv.PluginsEntry; p != nil && len(p.Plugins) > 0 {
		r.Unsupported(name, "the dump was made with plugins of CRIU's: %q", p.Plugins)
	}
	if inv.GetAllowUprobes() {
		r.Unsupported(name, "the dump was made with uprobes in place")
	}
	o := &to.Origin
	o.CgroupSet, o.Uptime, o.RunID = inv.GetRootCGSet(), inv.GetDumpUptime(), inv.GetDumpCRIURunID()
	o.NetworkLock, o.TCPClose = inv.NetworkLockMethod, inv.GetTCPClose()
	switch inv.GetLSMType() {
	case entry.LSMTypeSelinux:
		o.LSM = snapshot.LSMSELinux
	case entry.LSMTypeApparmor:
		o.LSM = snapshot.LSMAppArmor
	}
	if e := inv.RootIDs; e != nil {
		o.Namespaces = snapshot.Namespaces{
			PID: e.GetPIDNSID(), Net: e.GetNetNSID(), IPC: e.GetIPCNSID(), UTS: e.GetUtsNSID(),
			Mount: e.GetMntNSID(), User: e.GetUserNSID(), Cgroup: e.GetCgroupNSID(), Time: e.GetTimeNSID(),
		}
	} else {
		r.Damaged(name, "root_ids are missing: it cannot be told which namespaces were the dump's own")
	}
	if e := from.TimeNS; e != nil {
		r.Unknown(image.TimeNS.File(from.TimeNSID()), e, e.Unknown)
		o.Clocks = &snapshot.Clocks{
			Monotonic: snapshot.Timespec{Sec: int64(e.Monotonic.TvSec), Nsec: int64(e.Monotonic.TvNsec)},
			Boottime:  snapshot.Timespec{Sec: int64(e.Boottime.TvSec), Nsec: int64(e.Boottime.TvNsec)},
		}
		for _, c := range []entry.Timespec{e.Monotonic, e.Boottime} {
			if c.TvSec > maxClock || c.TvNsec >= 1e9 {
				r.Damaged(image.TimeNS.File(from.TimeNSID()), "a clock at %d seconds and %d nanoseconds", c.TvSec, c.TvNsec)
			}
		}
	}
}
