/*
 * promotion.pml - promotions without force and without a Coordinator: who may lead
 * is what superblocks exclude and what connected peers agree to ([10a], [10c],
 * [10e], [11g], [11h]).  See README.md.
 *
 * Bounds (override with -D): N replicas, NF failures (a process dies, a link goes
 * silent), NP promotions, NW writes.  NEW=1 starts with a volume that nobody ever led.
 */
#ifndef N
#define N 2
#endif
#ifndef NF
#define NF 2
#endif
#ifndef NP
#define NP 3
#endif
#ifndef NW
#define NW 2
#endif
#ifndef NEW
#define NEW 0
#endif
#define ALL ((1<<N)-1)
#define BIT(i) (1<<(i))
#define IN(m,i) (((m)>>(i))&1)
#define X(i,j) ((i)*N+(j))

/* durable: the newest write held, the in-sync set and its version, "excluded" */
byte w[N]; byte sset[N]; byte sver[N]; bool over[N];

/* volatile. role: 0 Secondary, 1 asks for votes, 2 promoted, 3 serves */
bool up[N]; byte role[N];
/* a session, as i believes in it; both believing is the same session */
bool con[N*N];
bool level[N*N];           /* at the handshake i lacked nothing that j has */
bool leads[N*N];           /* at the handshake, or since, j was Primary */
bool word[N*N];            /* i gave j its word not to be promoted */
byte vote[N*N];            /* i asked j: 0 no, 1 waits, 2 yes is under way, 3 no is, 4 yes, 5 no */
bool told[N*N];            /* i, which leads, told j of its set */

bool silent[N*N];          /* the link i-j, i<j: nothing passes, nobody is told */
byte nf; byte np; byte acked; byte a; byte b; byte c;

#define CUT(i,j) (((i)<(j)) -> silent[X(i,j)] : silent[X(j,i)])
#define LIVE(i,j) (con[X(i,j)] && con[X(j,i)] && !CUT(i,j))
#define EXCLUDES(i,j) (!over[i] && sset[i]!=0 && !IN(sset[i],j))
/* what i may know of j, or not know, is no reason against i's promotion */
#define FREE(i,j) ((i)==(j) || (con[X(i,j)] -> (level[X(i,j)] && !leads[X(i,j)] && !word[X(i,j)]) : EXCLUDES(i,j)))
/* j, whom i asked, has agreed */
#ifdef M_NO_VOTE
#define AGREED(i,j) true
#define LOST(i,j) false
#else
#define AGREED(i,j) (vote[X(i,j)]==0 || (vote[X(i,j)]==4 && con[X(i,j)]))
#define LOST(i,j) (vote[X(i,j)]==5 || (vote[X(i,j)]!=0 && !con[X(i,j)]))
#endif
/* j, if it is in the set of i, which leads, has all that i has, and knows the set */
#define HAS(i,j) ((i)==(j) || !IN(sset[i],j) || (LIVE(i,j) && leads[X(j,i)] && told[X(i,j)] && w[j]==w[i]))
#if N==2
#define EVERY(P,i) (P(i,0) && P(i,1))
#define SOME(P,i)  (P(i,0) || P(i,1))
#else
#define EVERY(P,i) (P(i,0) && P(i,1) && P(i,2))
#define SOME(P,i)  (P(i,0) || P(i,1) || P(i,2))
#endif

inline end(me, you) { con[X(me,you)]=0; level[X(me,you)]=0; leads[X(me,you)]=0; word[X(me,you)]=0; told[X(me,you)]=0;
	if :: vote[X(me,you)]!=0 && vote[X(me,you)]!=5 -> vote[X(me,you)]=5 :: else fi }
inline forget(me) { c=0; do :: c<N -> vote[X(me,c)]=0; c++ :: else -> break od; skip }
inline endAll(me) { a=0; do :: a<N -> end(me,a); a++ :: else -> break od; forget(me) }
inline untold(me) { a=0; do :: a<N -> told[X(me,a)]=0; a++ :: else -> break od; skip }

/* one, a Secondary, learns what the other one's superblock says */
inline learn(me, you) {
	if
	:: sver[you]>sver[me] && IN(sset[you],me) && !over[you] -> sset[me]=sset[you]; sver[me]=sver[you]   /* [11g] */
	:: sver[you]>sver[me] && sset[you]!=0 && !IN(sset[you],me) && !over[you] -> over[me]=1           /* [10c] */
	:: else
	fi
}

proctype Node(byte i) {
	do
	:: d_step { up[i] && nf<NF -> nf++; up[i]=0; role[i]=0; endAll(i) }
	:: d_step { !up[i] -> up[i]=1 }
	:: d_step { role[i]==3 -> role[i]=0; endAll(i) }                       /* demote */
	/* promote, without force: whoever is connected and not excluded is asked */
	:: d_step { up[i] && role[i]==0 && np<NP && !over[i] && EVERY(FREE,i) ->
		np++; role[i]=1;
		b=0; do :: b<N -> if :: con[X(i,b)] && !EXCLUDES(i,b) -> vote[X(i,b)]=1 :: else fi; b++ :: else -> break od;
		skip }
	/* one of them does not agree, or is lost: nothing has changed, and their word is given back */
	:: d_step { role[i]==1 && SOME(LOST,i) -> role[i]=0;
		b=0; do :: b<N -> if :: vote[X(i,b)]!=0 -> end(i,b) :: else fi; b++ :: else -> break od; forget(i) }
	/* all agree: a generation of ourselves and the recorded members that are here */
	:: d_step { role[i]==1 && EVERY(AGREED,i) -> role[i]=2;
		b=0; do :: b<N -> if :: b!=i && !con[X(i,b)] -> sset[i]=sset[i]&~BIT(b) :: else fi; b++ :: else -> break od;
		sset[i]=sset[i]|BIT(i); sver[i]++; endAll(i) }
	/* it serves once that is durable on every member */
	:: d_step { role[i]==2 && EVERY(HAS,i) ->
		b=0; do :: b<N -> assert(b==i || role[b]!=3); b++ :: else -> break od;  /* one serves */
		assert(w[i]==acked);                                                   /* and has everything */
		role[i]=3 }
	/* a write is answered: it is on every member */
	:: d_step { role[i]==3 && acked<NW && EVERY(HAS,i) ->
		assert(w[i]==acked);                                                   /* nobody else answered one */
		acked++;
		b=0; do :: b<N -> if :: IN(sset[i],b) -> w[b]=acked :: else fi; b++ :: else -> break od;
		skip }
	od
}

proctype Pair(byte i; byte j) {
	do
	/* the link goes silent; each side ends its session when it will */
	:: d_step { i<j && nf<NF && !CUT(i,j) -> nf++; silent[X(i,j)]=1 }
	:: d_step { i<j && CUT(i,j) -> silent[X(i,j)]=0 }
	:: d_step { con[X(i,j)] && (CUT(i,j) || !con[X(j,i)]) -> 
		b = leads[X(i,j)]; end(i,j);
		if :: b && role[i]==0 -> endAll(i) :: else fi }                        /* [11h] */
	/* two shake hands: Secondaries, or one with its Primary */
	:: d_step { i<j && up[i] && up[j] && !CUT(i,j) && !con[X(i,j)] && !con[X(j,i)] && role[i]!=1 && role[j]!=1 && (role[i]==0 || role[j]==0) ->
		if :: role[i]==0 -> learn(i,j) :: else fi;
		if :: role[j]==0 -> learn(j,i) :: else fi;
		con[X(i,j)]=1; con[X(j,i)]=1;
		level[X(i,j)]=(w[i]>=w[j]); level[X(j,i)]=(w[j]>=w[i]);
		leads[X(i,j)]=(role[j]>=2); leads[X(j,i)]=(role[i]>=2) }
	/* a vote: asked and given, on its way, heard */
	:: d_step { role[i]==1 && vote[X(i,j)]==1 && LIVE(i,j) ->
		if
#ifdef M_VOTE_WHILE_ASKING
		:: role[j]<=1 ->
#else
		:: role[j]==0 ->
#endif
#ifndef M_NO_WORD
			word[X(j,i)]=1;
#endif
			vote[X(i,j)]=2
		:: else -> vote[X(i,j)]=3
		fi }
	:: d_step { role[i]==1 && vote[X(i,j)]==2 && LIVE(i,j) -> vote[X(i,j)]=4 }
	:: d_step { role[i]==1 && vote[X(i,j)]==3 && LIVE(i,j) -> vote[X(i,j)]=5 }
	:: d_step { role[i]==1 && (vote[X(i,j)]==1 || vote[X(i,j)]==2) && CUT(i,j) -> vote[X(i,j)]=5 }   /* no answer in time */
	/* i leads: j is sent what it lacks, and told of the set; it notes that it is excluded */
	:: d_step { role[i]>=2 && LIVE(i,j) && leads[X(j,i)] && w[j]<w[i] -> w[j]=w[i] }
	:: d_step { role[i]>=2 && LIVE(i,j) && leads[X(j,i)] && !told[X(i,j)] ->
		told[X(i,j)]=1;
		if :: IN(sset[i],j) -> sset[j]=sset[i]; sver[j]=sver[i]; over[j]=0
#ifndef M_OLD_LICENCE
		   :: else -> over[j]=1
#else
		   :: else
#endif
		fi }
	/* a lost member leaves the set: our superblock first, then the others' */
#ifdef M_SHRINK_UNSAVED
	:: d_step { role[i]>=2 && IN(sset[i],j) && !con[X(i,j)] -> sset[i]=sset[i]&~BIT(j) }
#else
	:: d_step { role[i]>=2 && IN(sset[i],j) && !con[X(i,j)] -> sset[i]=sset[i]&~BIT(j); sver[i]++; untold(i) }
#endif
	/* one that has everything joins it */
	:: d_step { role[i]==3 && !IN(sset[i],j) && LIVE(i,j) && leads[X(j,i)] && w[j]==w[i] -> sset[i]=sset[i]|BIT(j); sver[i]++; untold(i) }
	od
}

/* when nothing more can happen, one leads and all are in its set */
proctype Quiet() {
	timeout;
	d_step {
		b=0; a=0;
		do :: b<N -> if :: role[b]==3 -> assert(sset[b]==ALL); a++ :: else fi; b++ :: else -> break od;
		assert(a==1 || (a==0 && np>=NP))
	}
}

init {
	d_step {
		b=0;
		do :: b<N -> up[b]=1;
#if NEW==0
			sset[b]=ALL; sver[b]=1;
#endif
			b++ :: else -> break od;
		skip
	};
	atomic {
		run Node(0); run Node(1); run Pair(0,1); run Pair(1,0);
#if N==3
		run Node(2); run Pair(0,2); run Pair(2,0); run Pair(1,2); run Pair(2,1);
#endif
		run Quiet()
	}
}
