// A module apart, as a user's would be: it sees what a user sees, and no more.
module usermod.example

go 1.26.0

require stasis.example v0.0.0

require (
	golang.org/x/sys v0.49.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace stasis.example => ../..
