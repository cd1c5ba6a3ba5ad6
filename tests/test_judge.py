"Numbers of `bot.judge` against scipy, scikit-learn and hand values, and whether its 95% intervals hold the truth in 93 to 97 of 100 samples"
import subprocess, sys
import numpy as np, pytest
from scipy.stats import binom, binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import classification_report, f1_score
from bot.judge import confusion, ece, logit_interval, macro_f1, mcnemar, paired_difference, per_class, Predictions, judge, reliability, wilson

@pytest.fixture
def rng(): return np.random.default_rng(0)

def test_import_is_light():
    "`bot-predict` waits for it"
    code = "import sys, bot.judge; assert not {'torch','fastai','scipy','sklearn','pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, '-c', code], check=True)

@pytest.mark.parametrize('n', [100, 333, 1000, 2000])
def test_wilson_is_scipys(n):
    k = np.arange(n+1)
    for level in (.9, .95):
        cis = [binomtest(int(o), n).proportion_ci(level, 'wilson') for o in k[::max(1, n//40)]]
        lo,hi = wilson(k[::max(1, n//40)], n, level)
        assert np.allclose(lo, [o.low for o in cis], atol=1e-12) and np.allclose(hi, [o.high for o in cis], atol=1e-12)

@pytest.mark.parametrize('n', [100, 200, 500, 1000, 2000])
@pytest.mark.parametrize('p', [.1, .3, .5, .8, .9, .95])
def test_wilson_covers(n, p):
    "All samples there are, by their probability: no simulation"
    k = np.arange(n+1)
    lo,hi = wilson(k, n)
    assert .93<=binom.pmf(k[(lo<=p)&(p<=hi)], n, p).sum()<=.97

def sample(rng, n, K, right=.7, w=None):
    "Labels of uneven classes, and answers"
    w = np.arange(1, K+1)/(K*(K+1)/2) if w is None else w
    y = rng.choice(K, n, p=w)
    return y,np.where(rng.random(n)<right, y, rng.choice(K, n, p=w))

def test_classes_are_sklearns(rng):
    y,predicted = sample(rng, 700, 12)
    by,theirs = per_class(confusion(y, predicted, 12)),classification_report(y, predicted, output_dict=True)
    for i in range(12):
        o = theirs[str(i)]
        assert np.allclose([by[k][i] for k in ('precision','recall','f1','images')], [o[k] for k in ('precision','recall','f1-score','support')])

@pytest.mark.parametrize('K,n', [(2,100), (10,400), (50,300)])
def test_f1_is_sklearns(rng, K, n):
    y,predicted = sample(rng, n, K)
    f1,lo,hi = macro_f1(y, predicted, K)
    assert abs(f1-f1_score(y, predicted, average='macro'))<1e-12 and 0<lo<hi<1
    draws = [f1_score(y[i], predicted[i], average='macro') for i in rng.integers(n, size=(300,n))]
    assert np.allclose((lo,hi), logit_interval(f1, draws), atol=.02)

@pytest.mark.slow
@pytest.mark.parametrize('K,n,right', [(2,200,.7), (2,200,.95), (5,500,.7), (10,300,.95), (10,2000,.6), (50,1000,.7)])
def test_f1_covers(rng, K, n, right):
    "Of uneven classes, of a good model, of 50 classes with 20 images each"
    even = np.ones(K)/K if K>=50 else None
    truth = macro_f1(*sample(rng, 3_000_000, K, right, even), K, draws=1)[0]
    los,his = zip(*(macro_f1(*sample(rng, n, K, right, even), K, draws=200, seed=i)[1:] for i in range(1000)))
    assert .93<=((np.array(los)<=truth) & (truth<=np.array(his))).mean()<=.97

def test_f1_of_extremes():
    "All draws of a bootstrap are alike there; the interval must not be a point"
    assert macro_f1([0,1]*50, [0,1]*50, 2)==(1., *wilson(100, 100)) and macro_f1([0,1]*50, [1,0]*50, 2)==(0., *wilson(0, 100))

def pair(rng, size, n, only):
    "Who was right, in `size` samples of `n` images of which shares `only` are right by one model alone"
    u = rng.random((size,n))
    a,b = u<only[0],(u>=only[0])&(u<sum(only))
    both = u>=1-.6
    return a|both,b|both

@pytest.mark.parametrize('n', [100, 500, 2000])
@pytest.mark.parametrize('only', [(.1,.1), (.05,.15), (.2,.1), (.15,.05)])
def test_paired_difference_covers(rng, n, only):
    a,b = pair(rng, 4000, n, only)
    res = np.array([paired_difference(*o) for o in zip(a, b)])
    assert np.allclose(res[:,0], b.mean(1)-a.mean(1))
    truth = only[1]-only[0]
    assert .93<=((res[:,1]<=truth) & (truth<=res[:,2])).mean()<=.97

def test_mcnemar_is_scipys(rng):
    a,b = pair(rng, 20, 150, (.1,.15))
    for o,p in zip(a, b):
        k,m = int((o&~p).sum()),int((p&~o).sum())
        assert abs(mcnemar(o, p)-min(1, 2*binom.cdf(min(k, m), k+m, .5)))<1e-9 and mcnemar(o, p)==mcnemar(p, o)
    assert mcnemar([1]*9, [1]*9)==1 and abs(mcnemar([0]*6+[1]*3, [1]*9)-2**-5)<1e-12

def test_mcnemar_keeps_its_level(rng):
    "It is exact: where neither is better it says so at least as often as it promises"
    assert np.mean([mcnemar(*o)<.05 for o in zip(*pair(rng, 500, 300, (.1,.1)))])<=.06

def test_reliability_is_sklearns(rng):
    p = rng.random(4000)
    right = rng.random(4000)<p**1.5
    o,(acc,prob) = reliability(p, right),calibration_curve(right, p, n_bins=15)
    assert np.allclose(o['accuracy'], acc) and np.allclose(o['probability'], prob) and o['images'].sum()==4000
    assert abs(ece(p, right)-(o['images']*abs(acc-prob)).sum()/4000)<1e-12

def test_ece_by_hand(): assert abs(ece([1.,1.,.5,.5], [1,0,1,0])-.25)<1e-12 and ece([1.,1.], [1,1])==0 and ece([0.], [1])==1

def test_a_thousand_classes(rng):
    y,predicted = sample(rng, 50_000, 1000)
    top,names = np.stack([(predicted+i)%1000 for i in range(5)], 1),[f'c{i}' for i in range(1000)]
    o = judge(Predictions([f'{i}.jpg' for i in range(50_000)], names, y, top, np.full((50_000,5), .2), np.ones(50_000)))
    assert len(o['classes'])==1000 and sum(c['images'] for c in o['confusion'])==50_000 and o['top5']>=o['accuracy'] and len(o['confusion'])<50_000
