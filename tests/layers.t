#!/usr/bin/env bash
# layers.t -- who may include whom.  The table is the design's; inclusion is transitive, a layer
# includes itself, tools include any layer, and nobody includes a tool.  A layer's public header is
# that of its own name; its other headers are its own affair (and the tests').
. "$(dirname "$0")/tap.sh"

layers='
base
text shard mesh dev < base
pref                < text
arch                < base mesh
ckpt                < shard mesh arch
op comm             < dev
model               < op mesh comm arch ckpt
loss                < op comm mesh
meter               < mesh arch
train               < model loss shard ckpt meter'

# faults ROOT: a line for every inclusion that the table forbids.
cat >faults <<'PERL'
use strict;
my ($table, $root) = @ARGV;
my %may;
for (grep { /\S/ } split /\n/, $table) {
    my ($who, $whom) = split /</;
    my @below = map { $_, keys %{ $may{$_} } } split ' ', $whom // '';
    $may{$_} = { map { $_ => 1 } @below, $_ } for split ' ', $who;
}
chdir $root or die "$root: $!";
for my $file (glob 'lib/*/*.* tools/*.* tests/*.[ch] tests/*/*.[ch]') {
    my ($folder) = $file =~ m{^(\w+)/};
    my ($layer) = $file =~ m{^lib/(\w+)/};
    my ($here) = $file =~ m{^(.*)/};
    my @own = $layer ? $here : $folder eq 'tests' ? ($here, 'tests', 'lib/op') : ();
    print "$file: $layer is not in the table\n" if $layer and !$may{$layer};
    open my $in, '<', $file or die "$file: $!";
    while (<$in>) {
        next unless /^\s*#\s*include\s+"([^"]+)"/;
        my $name = $1;
        my $at = "$file:$.: \"$name\"";
        if (-e "lib/$name" and my ($to, $header) = $name =~ m{^(\w+)/(\w+)\.\w+$}) {
            print "$at: $layer may not include $to\n" if $layer and !$may{$layer}{$to};
            print "$at: private to $to\n" if $header ne $to and $folder ne 'tests'
                and ($layer // '') ne $to;
        } elsif ($name =~ m{^\.\.} or !grep { -e "$_/$name" } @own) {
            print "$at: neither LAYER/HEADER.h in lib/ nor a header of this folder\n";
        }
    }
}
for my $dir (glob 'lib/*') {
    my ($layer) = $dir =~ m{^lib/(\w+)$};
    my @files = glob "$dir/*.*";
    print "$dir: no $layer.h\n" if @files and !-e "$dir/$layer.h";
}
PERL
faults() { perl "$W/faults" "$layers" "$1" | { ! grep . >&2; }; }
export layers; export -f faults

# tree FILE TEXT ...: a small source tree in which only the named files differ from a sound one.
tree() {
    rm -rf s && mkdir -p s/lib/{base,text,pref,dev,op,mesh} s/tools s/tests
    for l in base text pref dev op mesh; do : >s/lib/$l/$l.h; done
    echo '#include "op/op.h"' >s/lib/op/real.h
    while [ $# -gt 0 ]; do echo "$2" >>s/"$1"; shift 2; done
    faults s
}
export -f tree

ok 'every inclusion in the tree goes down'     'faults "$TOP"'
ok 'sound: transitive, private, from a tool or a test' \
   'tree lib/pref/fa.c "#include \"base/base.h\"" lib/op/add.c "#include \"real.h\"" \
         tools/x.c "#include \"pref/pref.h\"" tests/x.c "#include \"op/real.h\""'
x  'caught: upwards' 1 'text may not include pref'   'tree lib/text/a.c "#include \"pref/pref.h\""'
x  'caught: sideways' 1 'mesh may not include dev'   'tree lib/mesh/a.h "#include \"dev/dev.h\""'
x  'caught: a tool' 1 'neither'                      'tree lib/op/a.c "#include \"../tools/x.c\""'
x  'caught: a tool from a test' 1 'neither'          'tree tests/a.c "#include \"../tools/x.c\""'
x  'caught: private header' 1 'private to op'        'tree tools/a.c "#include \"op/real.h\""'
x  'caught: no public header' 1 'lib/comm: no comm.h' \
   'tree; mkdir s/lib/comm; : >s/lib/comm/self.c; faults s'
x  'caught: an unknown layer' 1 'misc is not in' \
   'tree; mkdir s/lib/misc; : >s/lib/misc/misc.h; faults s'
finish
