package app

// Values of InitOptions.Existing.
const (
	ExistingUndecided = ""       // stop if there are any
	ExistingIgnore    = "ignore" // leave them unpublished
)

// InitOptions are the choices of `walpost init`.
type InitOptions struct {
	PrintSQL  bool   // print what needs an owner's rights, and connect to nothing
	DryRun    bool   // look, say what would be done, change nothing
	AdoptSlot bool   // begin at the position of a slot that exists already
	Existing  string // what becomes of rows that are older than the slot
}
