package plan

import (
	"stasis.example/engine/internal/images"
	"stasis.example/engine/internal/snapshot"
	"stasis.example/image"
)

// check looks at what no single kind of state can tell.
func (p *Plan) check(set *images.Set, r *images.Report) {
	t := p.Tree
	if a := p.Options.Arch; a != 0 && t.Arch != 0 && a != t.Arch {
		r.Unsupported(image.PSTree.File(0), "the processes are of %v, this machine is %v", t.Arch, a)
	}
	for _, task := range t.Tasks {
		if task.State != snapshot.Dead {
			p.checkTask(task, r)
		}
		if l := task.Leader(); l != nil && l.Exited && set.Inventory.ImgVersion != image.VersionStasis {
			r.Damaged(images.CoreName(task.PID.Num()), "it says nothing about the thread")
		}
	}
}

func (p *Plan) checkTask(task *snapshot.Task, r *images.Report) {
	name := image.IDs.File(uint64(task.PID.Num()))
	own, dumper := &task.Namespaces, &p.Tree.Origin.Namespaces
	if *dumper == (snapshot.Namespaces{}) {
		return // the inventory does not say, which has been said
	}
	for kind := range own.Own(*dumper) {
		r.Unsupported(name, "a %s namespace of its own", kind)
	}
	for _, thread := range task.Threads {
		if set := p.Tree.Origin.CgroupSet; set != 0 && thread.CgroupSet != 0 && thread.CgroupSet != set {
			r.Note("processes were in another control group than the program that dumped them; they will be in that of whoever restores them")
		}
	}
}
