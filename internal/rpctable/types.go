package rpctable

// Kind is the protobuf type of a field.
type Kind int

const (
	Bool Kind = iota + 1
	Int32
	Uint32
	String
	Enum    // Field.Of names the enum
	Message // Field.Of names the message
)

// Card says how often a field may stand in its message (protobuf 2's labels).
type Card int

const (
	Optional Card = iota
	Required
	Repeated
)

// Field is one field of one message.
type Field struct {
	Name    string // as in rpc.proto
	Num     int32
	Kind    Kind
	Of      string // the enum or message, for those kinds
	Card    Card
	Default string // protobuf's default, as written there; "" for none
	Since   string // the first CRIU release that has it; "" as the message itself
	Help    string // one line, no final stop

	// Option is set on the rows of criu_opts and only there.
	*Option
}

// MessageType is a message of the RPC.
type MessageType struct {
	Name   string // as in rpc.proto
	Go     string // the Go type in criu/rpc
	Help   string
	Fields []Field // in order of their numbers
}

// EnumType is an enum of the RPC.
type EnumType struct {
	Name   string // as in rpc.proto
	Go     string // the Go type in criu/rpc
	Help   string
	Values []EnumValue
}

// EnumValue is one value of an enum.
type EnumValue struct {
	Name  string // as in rpc.proto
	Num   int32
	Go    string // the suffix of its Go constant
	Word  string // the word that stands for it on the command line and in package criu; "" where there is none
	Since string
	Help  string
}

// Op is a set of operations.
type Op uint16

// The operations that take options.
const (
	Check Op = 1 << iota
	Dump
	PreDump
	Restore
	PageServer
	CPUInfo
	Version
	FeatureCheck
)

// Every stands for the operations that read criu_opts as a whole.
const Every = Check | Dump | PreDump | Restore | PageServer | CPUInfo

// Has reports whether all of x is in o.
func (o Op) Has(x Op) bool { return o&x == x }

// Who says which callers of a service may set an option. A caller that started the peer itself (a swrk child, the
// engine in process) may set anything: it acts with its own rights only.
type Who int

const (
	// Anyone: the option only changes how the caller's own processes are treated.
	Anyone Who = iota + 1
	// Root: the option makes a privileged peer act on something that is not the caller's.
	Root
	// Direct: the option names a descriptor or a kinship that only exists where the peer is the caller's own child.
	Direct
)

// Shape says how an option is presented in Go and in C, beyond what its wire type says.
type Shape int

const (
	Plain     Shape = iota // bool, int, string, []string, as the wire type says
	DirFD                  // a directory: a path or an open file in Go, a descriptor on the wire
	PeerFD                 // a file of the caller's that the peer opens through /proc/<caller>/fd
	Duration               // seconds on the wire, time.Duration in Go
	Bytes                  // a size in bytes
	Word                   // an enum, a word in Go
	CPUCap                 // CRIU's CPU capability mask
	LogLevel               // CRIU's log levels
	Namespace              // CLONE_NEW* flags
	Keyed                  // a repeated message, a slice of structs in Go
	Struct                 // a single message, a pointer to a struct in Go
	Implicit               // set by the client itself, never by an option of its own; Why says when
)

// CForm says how libcriu presents an option.
type CForm int

const (
	CValue   CForm = iota // void for booleans and numbers, int (0 or -ENOMEM) for strings; "add_" appends
	CChecked              // int: one of the enum's values (else -1), or a number up to CMax (else -EINVAL)
	CUpsert               // int: a single string that replaces the former, though its name says add_
	CCustom               // written by hand in libcriu: more than one argument, or an effect beyond its field
	CNone                 // no setter: the library sets the field itself
)

// Option is what a row of criu_opts has beyond a field.
type Option struct {
	Ops        Op
	Who        Who
	Why        string // for Who beyond Anyone, and for Implicit: the reason, one line
	Go         string // the field's name in package criu's option structs
	Shape      Shape
	C          string // the C function's name behind criu_ and criu_local_, such as set_pid
	CForm      CForm
	CSince     string // the first libcriu that has it; "" where upstream has none and the function is our extension
	CMax       uint32 // largest value of a CChecked number that is not an enum
	Flag       string // long flag of criu(8), "" where the command line has none
	Short      string // its one-letter form
	Deprecated string // what to use instead
}
