"Other people's folders, tables, names and archives: read as they are meant, said, or refused in words"
import gzip, io, os, random, re, struct, subprocess, sys, tarfile, unicodedata, zipfile
from pathlib import Path
import pandas as pd, pytest, yaml
from PIL import Image
from bot import datasets, folders
from bot.cli import main
from bot.resume import RunFolder
from bot.core import DataError, shown, UsageError, write_atomic
from bot.datasets import unpack
from bot.folders import is_image
from bot.sources import find_source

Image.new('RGB', (9,9)).save(memory := io.BytesIO(), 'PNG')
tiny_png = memory.getvalue()

def lay(root, *names, n=3, ext='png'):
    "`n` small images in each folder of `root`"
    for k,o in enumerate(names):
        (root/o).mkdir(parents=True, exist_ok=True)
        for i in range(n): Image.new('RGB', (9,9), (40*k%256,i,0)).save(root/o/f'{i}.{ext}')
    return root

def both(*parts, classes=('cats','dogs')): return [f'{p}/{c}' for p in parts for c in classes]

def refused(src, *words, **kwargs):
    "The message that `src` is refused with"
    with pytest.raises(DataError) as e: find_source(src, **kwargs)
    text = str(e.value)
    assert text.isprintable(), text
    for o in words: assert o in text, text
    return text

code = 'import sys; from bot.cli import main; sys.exit(main())'
tiny = '--epochs 1 --arch xresnet18d --widen .0625 --size 32 --bs 4 --workers 0 --device cpu'.split()

def shell(*args, cwd, **env):
    env = {k:v for k,v in os.environ.items() if k!='FASTAI_HOME'} | env
    return subprocess.run([sys.executable, '-W', 'ignore', '-c', code, *args], cwd=cwd, capture_output=True, env=env)

# A split
@pytest.mark.parametrize('train,valid', [('training_set','test_set'), ('seg_train','seg_test'), ('train','dev'), ('train','holdout'), ('Train','Val'), ('TRAINING','TESTING'),
    ('TrainSet','ValSet'), ('train2017','val2017'), ('my-train','my-eval'), ('trainset','testset')])
def test_a_split_is_told_by_its_names(tmp_path, train, valid):
    lay(tmp_path, *both(train)), lay(tmp_path, *both(valid), n=2)
    src = find_source(tmp_path)
    assert (src.classes, src.n_train, src.n_valid)==(['cats','dogs'], 6, 4) and valid in src.how

def test_a_part_may_hold_itself(tmp_path):
    "As Kaggle's archives do, with pictures to be predicted beside it"
    lay(tmp_path, *both('seg_train/seg_train', 'seg_test/seg_test'), 'seg_pred/seg_pred')
    src = find_source(tmp_path)
    assert (src.classes, src.n_train, src.n_valid)==(['cats','dogs'], 6, 6) and 'folders not used: seg_pred (3 images)' in src.describe()

two_ways = [both('one','two'), both('cats','dogs', classes=('train','valid')), both('2019','2020','2021'), [*both('one','two'), 'two/cows'], [*both('data1','data2'), 'extra/cats'],
    ['learn/cats','check/cats'], ['learn/Cats','check/cats'], both('train/fold0','train/fold1'), both('train/fold0','train/fold1','val/fold0'), both('cats','dogs', classes=('2019','2020')),
    both('train/cats','train/dogs','val/cats','val/dogs', classes=('2019','2020')), both('learn/images','check/images'), both('a/learn','b/check'), ['cats','dogs',*both('learn')],
    [*both('train/train/f0'), *both('train/train/f1')], [*'abcdefgh', *both('seg_train'), 'seg_val/cats', 'seg_val/cows'], ['learn/cafe\u0301','check/caf\xe9']]

@pytest.mark.parametrize('names', two_ways)
@pytest.mark.parametrize('stray', [False, True])
def test_names_at_two_places_are_refused(tmp_path, names, stray):
    "Whether or not a picture got into one of the outer folders"
    lay(tmp_path, *names)
    if stray: (tmp_path/names[-1].split('/')[0]/'stray.png').write_bytes(tiny_png)
    refused(tmp_path, 'have one name', 'train and valid', 'directly into them', 'a table')

@pytest.mark.parametrize('names', [('learn/cats ','learn/dogs','check/Cats_','check/birds'), ('learn/-cats','check/cats.')])
def test_names_that_look_alike_are_one(tmp_path, names): refused(lay(tmp_path, *names), 'have one name')

@pytest.mark.parametrize('names,inner', [(('learn/cats','learn/dogs','check'), ['learn/cats','learn/dogs']), (('train/pets/cats','train/pets/dogs','train/cars','valid/pets','valid/cars'), ['train/pets/cats','train/pets/dogs'])])
def test_a_level_that_is_not_used_is_said(tmp_path, names, inner):
    "A split that nothing gives away as one, or a finer kind of class"
    said = find_source(lay(tmp_path, *names)).describe()
    assert 'folders inside of a class count as that class, whatever their name: '+', '.join(inner) in said
    assert 'inside of a class' not in find_source(lay(tmp_path/'b', 'cats/images', 'dogs/images')).describe()

def test_a_stray_image_hides_no_split(tmp_path):
    lay(tmp_path, *both('seg_train/seg_train', 'seg_test'))
    for o in 'seg_train', 'seg_train/seg_train', 'seg_test': (tmp_path/o/'stray.png').write_bytes(tiny_png)
    src = find_source(tmp_path)
    assert (src.classes, src.n_train, src.n_valid)==(['cats','dogs'], 6, 6) and '3 images outside of class folders not used' in src.describe()

@pytest.mark.parametrize('names', [['train_images','test_images'], [*both('training_set'), 'test_set'], [*both('seg_train'), *both('seg_val', classes='ab')], ['train-a','val-a','test-a']])
def test_parts_without_the_same_classes_are_refused(tmp_path, names): refused(lay(tmp_path, *names), 'named as parts of a split', 'rename')

@pytest.mark.parametrize('names,classes', [(['test_tube','flask'], ['flask','test_tube']), (['bullet_train','test_tube','flask','cup','pan'], ['bullet_train','cup','flask','pan','test_tube']), (['model_train/red','bus/blue'], ['bus','model_train']), (['bus/a','bus/b','car/c','car/d'], ['bus','car']), (['cats','cats/old','dogs','dogs/old'], ['cats','dogs']), (['cats','cats/old/x/y','dogs'], ['cats','dogs']), (['train/bus/a','train/car/b','val/bus/a','val/car/a'], ['bus','car']), (both('a','b', classes=['images']), ['a','b'])])
def test_classes_stay_classes(tmp_path, names, classes): assert find_source(lay(tmp_path, *names)).classes==classes

def test_flat_validation_images_are_refused(tmp_path): refused(lay(tmp_path, *both('train'), 'val', ext='jpg'), 'val', 'have no class')

def test_flat_test_images_are_said(tmp_path):
    src = find_source(lay(tmp_path, *both('train'), 'test'))
    assert 'random' in src.how and '3 images outside of class folders not used' in src.describe()

def test_classes_beside_a_split_are_refused(tmp_path):
    refused(lay(tmp_path, 'bus', 'car', *both('train', classes=('steam','diesel'))), 'train', 'bus')

@pytest.mark.parametrize('names', [both('train','Train'), both('train','training','val'), both('train','val','validation'), [*both('train','valid'), 'val']])
def test_two_folders_for_one_part_are_refused(tmp_path, names): refused(lay(tmp_path, *names), 'are both named as the')

def test_a_test_part_is_kept_aside(tmp_path):
    lay(tmp_path, *both('train','valid')), lay(tmp_path, *both('test'), n=5)
    src = find_source(tmp_path)
    assert (src.n_train, src.n_valid, len(src.test))==(6, 6, 10) and '10 test images are kept aside' in src.describe()
    assert not set(src.test) & set(src.items) and all(Path(f).parts[-3:-1]==('test',c) for f,c in src.test)
    lay(tmp_path, 'test/cows')
    assert 'classes without training images: cows' in find_source(tmp_path).describe()

def test_one_level_too_high(tmp_path):
    lay(tmp_path, *both('data/data/train', 'data/data/valid')), lay(tmp_path, *both('pets/pets'))
    refused(tmp_path/'data', f"'{tmp_path}/data/data'"), refused(tmp_path/'pets', f"'{tmp_path}/pets/pets'")
    assert find_source(tmp_path/'data/data').n_valid==6

def test_images_without_a_class(tmp_path):
    lay(tmp_path, '.', *both('train','valid'), 'train', 'valid')
    assert '9 images outside of class folders not used' in find_source(tmp_path).describe()
    refused(lay(tmp_path/'flat', '.'), '3 images', 'no class folders')

def test_another_folder_beside_a_whole_split_is_named(tmp_path):
    assert 'folders not used: unsup (3 images)' in find_source(lay(tmp_path, *both('train','val'), 'unsup')).describe()

# What is not used
def test_what_is_not_used_is_said(tmp_path):
    lay(tmp_path, 'cats', 'dogs')
    for i in range(6): (tmp_path/'cats'/f'{i}.heic').touch()
    for o in 'cats/a.txt', 'b.TXT', 'dogs/README', '.hidden.txt', 'dogs/.DS_Store': (tmp_path/o).touch()
    assert '6 .heic, 2 .txt, 1 without suffix (pip install "bot[heic]" to read HEIC) not used' in find_source(tmp_path).describe()

@pytest.mark.parametrize('name', ['a.jfif', 'a.avif', 'a.ppm', 'a.pgm', 'a.jp2', 'a.jpg_large', 'a.jpg ', 'a.png:small', 'a.JPG?w=300', 'a.jpg\r', 'a.j2k', 'a.pbm', 'a.png_orig', 'a.jpg.', 'a.pjpeg', 'a.pjp'])
def test_suffixes_that_are_read(tmp_path, name):
    kinds = {'.avif':'AVIF', '.ppm':'PPM', '.pgm':'PPM', '.pbm':'PPM', '.jp2':'JPEG2000', '.j2k':'JPEG2000', '.png':'PNG'}
    for i,c in enumerate('ab'):
        (tmp_path/c).mkdir()
        for j in range(3): Image.new('L' if name=='a.pgm' else '1' if name=='a.pbm' else 'RGB', (32,32)).save(tmp_path/c/f'{j}{name}', kinds.get(folders.suffix(name), 'JPEG'))
    assert find_source(tmp_path).n_train==4

@pytest.mark.parametrize('name', ['a.jpg_original', 'a.jpg~', 'a.jpg.part', 'jpg', '.jpg', 'a.heic'])
def test_names_of_other_files(name): assert not is_image(name)

def test_a_class_with_nothing_that_is_read(tmp_path):
    lay(tmp_path, 'cats', 'dogs'), (tmp_path/'cows').mkdir()
    for i in range(8): (tmp_path/'cows'/f'{i}.dng').touch()
    refused(tmp_path, 'cows', '8 .dng')
    for i in range(2): (tmp_path/'cows'/f'{i}.HEIC').touch()
    refused(tmp_path, 'cows', '8 .dng, 2 .heic', 'bot[heic]')
    for i in range(11): (tmp_path/'cows'/f'{i}.txt').touch()
    assert 'folders without images: cows (11 .txt, 8 .dng, 2 .heic' in find_source(tmp_path).describe()

@pytest.mark.parametrize('name', ['a.jxl', 'a.JXL', 'a.heic', 'a.cr2', 'a.tga', 'a.svg', 'a.png.1', 'a.png.download', 'a.jpg.part', 'a.jpeg.crdownload', 'a.jpg~', 'a.jpg_original'])
@pytest.mark.parametrize('at', ['cows', 'cows/deep', 'train/cows', 'val/cows', 'val'])
def test_pictures_that_are_not_read_are_no_reason_to_drop_a_class(tmp_path, name, at):
    if name=='a.heic' and is_image(name): return   # read here
    lay(tmp_path, *(both('train') if at[0] in 'tv' else ('cats','dogs')), *(both('val') if at[:4]=='val/' else ()))
    (tmp_path/at).mkdir(parents=True, exist_ok=True), (tmp_path/at/name).touch()
    refused(tmp_path, 'has nothing that is read', f'1 {folders.file_kind(name)}', 'convert them')

@pytest.mark.parametrize('name,kind', [('a.png.1', '.png.1'), ('a.PNG.Download', '.png.download'), ('a.jpg.part', '.jpg.part'), ('a.tar.gz', '.gz'), ('a.jpg.json', '.jpg.json'), ('a.jxl', '.jxl')])
def test_a_file_that_is_not_used_is_counted_by_its_name(tmp_path, name, kind):
    (lay(tmp_path, 'cats', 'dogs')/'cats'/name).touch()
    assert find_source(tmp_path).notes==[f'1 {kind} not used']

def test_one_class_says_what_else_there_is(tmp_path):
    lay(tmp_path, 'cats'), (tmp_path/'dogs').mkdir(), (tmp_path/'dogs/1.cr2').touch()
    refused(tmp_path, 'dogs', '1 .cr2')
    (tmp_path/'dogs/1.cr2').rename(tmp_path/'dogs/1.npy')
    refused(tmp_path, "'cats'", 'dogs (1 .npy)')

def test_folders_that_are_no_class(tmp_path):
    lay(tmp_path, 'cats', 'dogs')
    for o in 'runs/20260101-000000-xresnet18d-mixup', 'first', 'cats/deep': RunFolder(lay(tmp_path/o, '.', 'curves')).write('finished')
    (tmp_path/'models').mkdir(), (tmp_path/'models/last.pth').touch()
    (tmp_path/'__MACOSX/cats').mkdir(parents=True), (tmp_path/'__MACOSX/cats/._0.png').touch()
    src = find_source(tmp_path)
    assert (src.classes, len(src.items))==(['cats','dogs'], 6)
    assert src.notes==['folders without images: first (1 run folders), models (1 .pth), runs (1 run folders)', '1 run folders, 1 __MACOSX folders not used']
    refused(tmp_path/'first', 'No images', '1 run folders not used')

@pytest.mark.parametrize('name', ['wandb', '@eaDir', '$RECYCLE.BIN', '$Recycle.Bin', 'lost+found', 'node_modules', '__MACOSX', '.ipynb_checkpoints', 'lightning_logs', 'mlruns', 'checkpoints', '__pycache__', 'System Volume Information', '#recycle'])
def test_folders_that_tools_make_are_no_class(tmp_path, name):
    "Images in them are neither a class nor of one"
    for names,at in ((('cats','dogs'), ('.','cats')), (both('train','val'), ('.','train','val/cats'))):
        path = lay(tmp_path/at[-1].split('/')[0], *names)
        for o in at: lay(path/o/name, '.', 'media/images')
        src = find_source(path)
        assert (src.classes, len(src.items))==(['cats','dogs'], 3*len(names))
        assert src.notes==([] if name[0]=='.' else [f'{len(at)} {name} folders not used'])
        assert find_source(lay(tmp_path/name/at[-1].split('/')[0], 'cats', 'dogs')).classes==['cats','dogs']   # if the user names it

@pytest.mark.parametrize('file,text,is_run', [('args.yaml','rung: mixup\nbut: []\n',True), ('status.json','{"state": "running", "epochs": 0}',True), ('args.yaml','aa: rand-m9\nbatch_size: 64\n',False),
    ('status.json','{"status": "done"}',False), ('status.json','',False), ('args.yaml',None,False)])
def test_a_run_folder_by_one_of_its_files(tmp_path, file, text, is_run):
    "This package's; other programs write files of those names"
    lay(tmp_path, 'cats', 'dogs', 'mice/curves')
    (tmp_path/'mice'/file).mkdir() if text is None else (tmp_path/'mice'/file).write_text(text)
    assert find_source(tmp_path).classes==['cats','dogs'] + ['mice']*(not is_run)

def test_training_in_the_folder_of_the_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(lay(tmp_path, 'cats', 'dogs', n=8))
    for _ in range(3):
        rc = main(['.', *tiny])
        out = capsys.readouterr()
        assert rc==0, out.err
    assert '2 classes' in out.out and 'folders without images: runs' in out.out and len(list(Path('runs').iterdir()))==3
    for o,file in zip(Path('runs').iterdir(), ('args.yaml','status.json','args.yaml')):   # one that was cut off, or half copied
        lay(o, 'curves'), (o/file).unlink()
    assert find_source('.').classes==['cats','dogs']

def test_a_class_named_as_an_image_is_a_class(tmp_path):
    "And an empty folder of such a name is no image that can be read"
    lay(tmp_path, 'a.jpg', 'b.png', 'c', n=4)
    src = find_source(tmp_path)
    assert src.classes==['a.jpg','b.png','c'] and len(src.items)==12
    (tmp_path/'c/d.jpg').mkdir()
    assert len(find_source(tmp_path).items)==13

@pytest.mark.parametrize('names', [('Cats','cats','dogs'), ('cats','cats ','dogs')])
def test_names_that_look_the_same_are_said(tmp_path, names):
    lay(tmp_path, *names, n=4)
    assert 'differ in nothing but case or spaces' in find_source(tmp_path).describe()
    table = pd.DataFrame([(str(f), c) for f,c in find_source(tmp_path).items], columns=['image','label'])
    said = find_source(table, root='/').describe()
    assert ('differ in nothing' in said)==(names[0]=='Cats')   # a table's labels come without spaces around them

def random_tree(path, rng, depth=0):
    "Folders, images and other files as people leave them; how many images and other files there are in all"
    n_images = n_others = 0
    path.mkdir()
    for i in range(rng.choice((0, 0, 1, 3)) if depth<2 else rng.choice((0, 1, 2))):
        (path/f'{i}.png').write_bytes(tiny_png)
        n_images += 1
    for o in rng.sample(('a.txt', 'b.heif2', 'README'), rng.choice((0, 0, 1))):
        (path/o).touch()
        n_others += 1
    names = 'train Train val valid dev test testing cats dogs cows seg_train seg_test 2019 2020 models'.split()
    for o in rng.sample(names, rng.choice((2, 3, 4)) if depth<2 else rng.choice((0, 0, 1))) if depth<4 else []:
        below = random_tree(path/(f'{o}{rng.randrange(10**6)}' if depth and rng.random()<.7 else o), rng, depth+1)
        n_images,n_others = n_images+below[0],n_others+below[1]
    return n_images,n_others

def numbers(pattern, text): return sum(int(o) for o in re.findall(pattern, text))

def test_every_file_is_used_said_or_the_folder_refused(tmp_path):
    read = 0
    for seed in range(520):
        path = tmp_path/f'{seed}'
        n_images,n_others = random_tree(path, random.Random(seed))
        try: src = find_source(path)
        except DataError: continue
        said,read = src.describe(),read+1
        if ' and ' in said.partition('\n')[2]: continue   # not all is written out
        left = numbers(r'\((\d+) images?\)', said)
        assert len(src.items)+len(src.test)+left+numbers(r'(\d+) images? outside', said)==n_images, said
        assert len({f for f,_ in src.items+src.test})==len(src.items)+len(src.test)
        if not left: assert numbers(r'(\d+) (?:\.\w+|without suffix)', said)==n_others, said
    assert read>30

# Tables
def table(tmp_path, text, n=10, **kwargs):
    lay(tmp_path, 'cats', 'dogs', n=n)
    (tmp_path/'t.csv').write_text(text, **kwargs)
    return tmp_path/'t.csv'

def lines(head, *columns, n=10, sep=','):
    return '\n'.join([head, *(sep.join([f'{c}/{i}.png', c, *(f(i) for f in columns)]) for c in ('cats','dogs') for i in range(n))])

@pytest.mark.parametrize('head,words', [('image,label,is_valid', ('False','True')), ('image,label,is_valid', ('0','1')), ('image,label,split', ('0','1')), ('Image,Label,Split', ('Train','VALID')),
    ('IMAGE, label ,split', ('train ','Val')), ('image,label,is_valid', ('0.0','1.0')), ('image,label,IS_VALID', ('no','YES')), ('image,label,split', ('train','dev')), ('image,label,split', ('Training','Holdout'))])
def test_the_tables_own_split(tmp_path, head, words):
    src = find_source(table(tmp_path, lines(head, lambda i: words[i<3])))
    assert (src.n_train, src.n_valid)==(14, 6) and 'its column' in src.how and all(Path(f).stem in '012' for f,_ in src.valid)

def test_the_split_of_a_frame(tmp_path):
    lay(tmp_path, 'cats', 'dogs', n=10)
    for dtype in bool,int,float,object:
        df = pd.DataFrame([(f'{c}/{i}.png',c,i<3) for c in ('cats','dogs') for i in range(10)], columns=['image','label','is_valid']).astype(dict(is_valid=dtype))
        assert find_source(df, root=tmp_path).n_valid==6, dtype

def test_columns_that_are_not_used_are_named(tmp_path):
    src = find_source(table(tmp_path, lines('image,label,width,fold', str, str)))
    assert 'columns not used: width, fold' in src.describe() and 'random' in src.how

@pytest.mark.parametrize('head,words', [('phase', ('train','val')), ('Phase', ('Train','TEST')), ('subset', ('training','validation')), ('fold', ('train','holdout')), ('set', ('train','dev')), ('valid', ('0','1')),
    ('valid', ('False','True')), ('is_train', ('1','0')), ('Is Train', ('True','False')), ('is-train', ('yes','no')), ('train', ('1.0','0.0')), ('is_val', ('0','1')), ('is valid', ('0','1')), ('valid', ('train','valid'))])
def test_a_split_under_another_name(tmp_path, head, words):
    src = find_source(table(tmp_path, lines(f'image,label,width,{head}', str, lambda i: words[i<3])))
    assert (src.n_train, src.n_valid, src.notes)==(14, 6, ['columns not used: width']) and src.how==f"its column {'is_valid' if head=='is valid' else head}"
    assert all(Path(f).stem in '012' for f,_ in src.valid)

@pytest.mark.parametrize('head,tell', [('fold', lambda i: str(i%2)), ('phase', lambda i: 'train'), ('phase', lambda i: 'trian' if i==4 else 'val' if i<3 else 'train'),
    ('valid', lambda i: str(int(i>0))), ('subset', lambda i: 'val' if i<3 else ''), ('is_train', lambda i: '1'), ('set', lambda i: 'ab'[i<3]), ('usage', lambda i: ('Training','PublicTest')[i<3]), ('my_split', lambda i: ('train','val')[i<3]),
    ('subset', lambda i: str(int(i<3)))])
def test_a_column_that_tells_no_split_is_named(tmp_path, head, tell):
    src = find_source(table(tmp_path, lines(f'image,label,{head}', tell)))
    assert 'random' in src.how and src.notes==[f'columns not used: {head}']

def test_columns_that_tell_different_splits(tmp_path):
    def two(other): return table(tmp_path, lines('image,label,phase,is_train', lambda i: ('train','val')[i<3], other))
    refused(two(lambda i: str(int(i>=4))), 'phase', 'is_train', 'different splits', 'split')
    src = find_source(two(lambda i: str(int(i>=3))))
    assert (src.n_valid, src.how, src.notes)==(6, 'its column phase', ['columns not used: is_train'])
    src = find_source(table(tmp_path, lines('image,label,phase,split', lambda i: ('train','val')[i<3], lambda i: ('train','val')[i<4])))
    assert (src.n_valid, src.how, src.notes)==(8, 'its column split', ['columns not used: phase'])

merging = [('image,label,', 'cats/2.png,cats, small'), ('image,label,', 'cats/2.png,cats, small,'), ('image,label', 'cats/2.png,cats, small,'), ('image,label,note', 'cats/2.png,cats, small,'), ('image,label,,width', 'cats/2.png,cats, small,9'),
    ('image,label,note,', 'cats/2.png,cats, small,'), ('image,label,split', 'cats/2.png,cats, small,train'), ('image,label,split', 'cats/2.png,cats, small,'), ('image,label,,', 'cats/2.png,cats, small,,'), (',image,label', '7,cats/2.png,cats, small'), ('image,label,a,b', 'cats/2.png,cats, 1,0,')]

@pytest.mark.parametrize('head,row', merging)
@pytest.mark.parametrize('ragged', [False, True])
def test_an_unquoted_separator_is_no_other_class(tmp_path, head, row, ragged):
    "Whether the other rows are as long as the header or leave its empty columns out"
    cells = {'':'', 'note':'', 'width':'9', 'split':'train', 'a':'1', 'b':'0'}
    if not ragged and head=='image,label,note,': row += ','   # else it is as long as the others, and a note
    names = (head.rstrip(',') if ragged else head).split(',')
    rows = [','.join(dict(image=f'{c}/{i}.png', label=c).get(o, cells.get(o)) for o in names) for c in ('cats','dogs') for i in range(3)]
    refused(table(tmp_path, '\n'.join([head, *rows, row])), 'Row 7', 'quotes')
    src = find_source(table(tmp_path, '\n'.join([head, *rows])) if 'split' not in head else table(tmp_path, '\n'.join([head, *rows, 'cats/4.png,cats,val'])))
    assert src.classes==['cats','dogs']

def test_a_label_in_the_column_of_the_split(tmp_path): refused(table(tmp_path, lines('image,label,split', lambda i: 'train')+'\ncats/2.png,cats, small'), 'row 21', 'column split', 'label in quotes')

def test_an_index_without_a_name_is_let_be(tmp_path):
    lay(tmp_path, 'cats', 'dogs')
    pd.DataFrame([(f'{c}/{i}.png',c) for c in ('cats','dogs') for i in range(3)], columns=['image','label']).to_csv(tmp_path/'t.csv')
    assert find_source(tmp_path/'t.csv').notes==['columns not used: (no name)']

@pytest.mark.parametrize('sep', [';', '\t', '|'])
def test_other_separators(tmp_path, sep):
    src = find_source(table(tmp_path, lines(sep.join(('image','label','split')), lambda i: 'train' if i else 'valid', sep=sep)))
    assert (src.classes, src.n_valid)==(['cats','dogs'], 2)

def test_what_a_spreadsheet_writes(tmp_path):
    "A byte order mark, CRLF, quotes, empty lines and an empty last column"
    src = find_source(table(tmp_path, lines('"image","label"').replace('dogs\n', '"dogs, small"\n').replace('\n', ',\r\n')+',\r\n\r\n,\r\n', encoding='utf-8-sig', newline=''))
    assert src.classes==['cats','dogs','dogs, small']

@pytest.mark.parametrize('text,words', [
    ('image,label\n', ['no rows']), ('', ["No column 'image'"]), ('image,label\ncats/0.png,cat, small\n', ['Row 1', '3 columns', 'quotes']),
    ('image,label,split\ncats/0.png,cat\n', ['Row 1', '2 columns']), ('image,label\na.png,"cat\nb.png,dog\n', ['t.csv']),
    ('image,label\nhttps://a.b/c.png,cats\n', ['Row 1', 'URL']), ('image,Image,label\na,b,c\n', ['two columns', 'image']),
    ('image,label,split,is_valid\na,b,train,0\n', ['two columns', 'split and is_valid']), ('image,label,split\na.png,b,train\nc.png,d,whatever\n', ['whatever', 'row 2', 'train, valid or test']),
    ('image,label,split\na.png,b,\n', ['Row 1', 'no split']), ('cats/0.png,cats\ncats/1.png,cats\n', ["No column 'image'", 'first line', 'cats/0.png']),
    ('image,label,is_valid\ncats/0.png,cats,1\n', ['No training images'])])
def test_tables_that_are_refused(tmp_path, text, words): refused(table(tmp_path, text), *words)

@pytest.mark.parametrize('change,words', [(lambda o: o.replace('/', '\\'), ["write '/'"]), (lambda o: o[:-4], [".png'", 'suffix']), (lambda o: 'x'+o, ['No such file', 'root'])])
def test_paths_that_lead_nowhere(tmp_path, change, words):
    lay(tmp_path, 'cats', 'dogs')
    df = pd.DataFrame([(change(f'{c}/{i}.png'),c) for c in ('cats','dogs') for i in range(3)], columns=['image','label'])
    refused(df, "class 'cats'", 'files tried', change('cats/1.png'), *words, root=tmp_path)

def test_unreadable_images_have_a_reason(tmp_path):
    for o in lay(tmp_path, 'cats', 'dogs').glob('dogs/*'): o.write_text('no image')
    refused(tmp_path, "class 'dogs'", '2 files tried', 'dogs/1.png', 'not an image of a known format')

def test_doubles_are_said(tmp_path):
    text = lines('image,label,split', lambda i: 'train' if i else 'valid')
    src = find_source(table(tmp_path, f'{text}\ncats/1.png,cats,train\ncats/2.png,dogs,train\ndogs/3.png,dogs,valid\n./cats/4.png,cats,train\n'))
    said = src.describe()
    assert f"1 image has two labels, the first is '{tmp_path}/cats/2.png'" in said and f"1 image is in two parts of the split, the first is '{tmp_path}/dogs/3.png'" in said
    assert '2 images are repeated' in said
    assert find_source(table(tmp_path, text)).notes==[]

@pytest.mark.parametrize('kind', ['folder', 'relative', 'frame'])
def test_a_link_is_what_it_leads_to(tmp_path, monkeypatch, kind):
    "To a file or to a folder, within a class, in two classes, in two parts"
    (tmp_path/'data').symlink_to(lay(tmp_path/'real', *both('train','val')))   # the data themselves may be behind a link
    top = tmp_path/'data'
    monkeypatch.chdir(tmp_path)
    def notes():
        if kind!='frame': return find_source(top if kind=='folder' else 'data').notes
        df = pd.DataFrame([(str(o.relative_to(top)), o.parent.name, o.parts[-3]) for o in sorted(top.glob('*/*/*'))], columns=['image','label','split'])
        return find_source(df, root=top).notes
    assert notes()==[]
    os.symlink('0.png', top/'train/cats/again.png'), os.symlink(tmp_path/'real/train/cats/0.png', top/'train/cats/absolute.png')
    assert notes()==['2 images are repeated']
    os.symlink('../dogs/1.png', top/'train/cats/dog.png')
    assert notes()==[f"1 image has two labels, the first is '{tmp_path}/real/train/dogs/1.png'", '2 images are repeated']
    os.symlink('../../train/cats/2.png', top/'val/cats/seen.png')
    assert f"1 image is in two parts of the split, the first is '{tmp_path}/real/train/cats/2.png'" in notes()
    os.rename(top/'val', tmp_path/'elsewhere'), os.symlink('train', top/'val')
    assert any(o.startswith('6 images are in two parts') for o in notes()), notes()

def test_links_in_a_random_split(tmp_path):
    lay(tmp_path, 'cats', 'dogs', n=1)
    for i in range(1, 10): os.symlink('0.png', tmp_path/f'cats/{i}.png'), os.symlink('0.png', tmp_path/f'dogs/{i}.png')
    said = find_source(tmp_path).describe()
    assert '2 images are in two parts of the split' in said and '16 images are repeated' in said

@pytest.mark.parametrize('src', [123, None, True, 1.5, b'photos', ['a'], ('a','b'), {'a'}, {}, object(), Image, pd.Series(['a.png'])])
def test_a_source_of_another_kind_is_refused(src):
    with pytest.raises(UsageError, match='name a folder, a CSV file') as e: find_source(src)
    assert len(str(e.value))<200 and str(e.value).isprintable()

@pytest.mark.parametrize('root', [123, ['a'], b'a', object()])
def test_a_root_of_another_kind_is_refused(root):
    df = pd.DataFrame([('a.png','a'), ('b.png','b')], columns=['image','label'])
    with pytest.raises(UsageError, match='root='): find_source(df, root=root)

def test_any_root(tmp_path):
    df = pd.DataFrame([(f'{tmp_path}/{c}/{i}.png',c) for c in ('cats','dogs') for i in range(3)], columns=['image','label'])
    lay(tmp_path, 'cats', 'dogs')
    assert find_source(df, root='/').n_train==4
    refused(df, 'leaves its folder', 'root', root=tmp_path/'cats')

def test_labels_are_compared_composed(tmp_path):
    a,b = (unicodedata.normalize(o, 'café') for o in ('NFC','NFD'))
    assert find_source(table(tmp_path, 'image,label,split\n'+f'cats/0.png,{a},train\ncats/1.png,{b},valid\ndogs/0.png,dog,train\n')).classes==[a,'dog']

# Names
def test_two_ways_to_write_a_name(tmp_path):
    a,b = (unicodedata.normalize(o, 'café') for o in ('NFC','NFD'))
    lay(tmp_path, f'train/{a}', 'train/tea', f'valid/{b}', 'valid/tea')
    src = find_source(tmp_path)
    assert (src.classes, src.n_valid)==([a,'tea'], 6)
    refused(lay(tmp_path, f'train/{b}'), 'two ways of Unicode')

def test_names_that_are_no_text(tmp_path):
    lay(tmp_path, 'dogs'), os.rename(tmp_path/'dogs', os.fsencode(tmp_path)+b'/caf\xe9')
    refused(lay(tmp_path, 'cats'), r'caf\udce9', 'UTF-8')
    refused(pd.DataFrame([('a.png','b\udce9'), ('c.png','d')], columns=['image','label'], dtype=object), r'b\udce9', 'UTF-8')

def test_control_characters_are_shown(tmp_path):
    evil = 'a\x1b[2J\nb'
    assert shown(evil)==r'a\x1b[2J\nb' and shown('\u202egnp.exe')==r'\u202egnp.exe' and shown('Äpfel 🍏 مرغ')=='Äpfel 🍏 مرغ'
    for o in lay(tmp_path, f'x/{evil}', 'x/c').glob('x/a*/*'): o.write_text('no image')
    assert r'\x1b[2J\n' in refused(tmp_path/'x')
    for src in tmp_path/evil, lay(tmp_path/evil, 'c'): assert '\x1b' not in refused(src)
    src = find_source(lay(tmp_path/evil, 'c', 'd', f'e{evil}'))
    (tmp_path/evil/evil).mkdir()
    assert '\x1b' not in find_source(tmp_path/evil).describe() and f'e{evil}' in src.classes

def test_text_that_is_no_utf8_is_written(tmp_path):
    write_atomic(tmp_path/'a.csv', 'caf\udce9.jpg')
    assert (tmp_path/'a.csv').read_text()==r'caf\udce9.jpg'

def test_names_that_cannot_be_printed_end_no_run(tmp_path):
    "An emoji on a terminal of Windows, and a damaged file whose name is no text"
    lay(tmp_path, *both('photos/train', 'photos/valid', classes=('cats🐈','dogs')), n=8)
    for part in 'train','valid': (tmp_path/f'photos/{part}/dogs/z\udce9.png').write_text('no image')
    p = shell('photos', *tiny, '--bad', 'skip', '--out', 'out', cwd=tmp_path, PYTHONIOENCODING='cp1252')
    assert p.returncode==0, p.stderr
    assert b'\\U0001f408' in p.stdout and rb'dogs/z\udce9.png' in p.stdout
    assert (tmp_path/'out/unreadable.csv').read_text().count(r'z\udce9.png')==2
    assert yaml.safe_load((tmp_path/'out/args.yaml').read_text())['classes']==['cats🐈','dogs']

def test_a_table_and_its_root_at_a_prompt(tmp_path, monkeypatch, capsys):
    lay(tmp_path/'images', 'cats', 'dogs', n=8), (tmp_path/'lists').mkdir()
    (tmp_path/'lists/a.csv').write_text(lines('image,label', n=8))
    monkeypatch.chdir(tmp_path)
    rc,out = main(['lists/a.csv', '--root', 'images', '--valid-pct', '.5', '--out', 'out', *tiny]),capsys.readouterr()
    assert rc==0 and '8 training and 8 validation images' in out.out, out.err
    args = yaml.safe_load(Path('out/args.yaml').read_text())
    root = str(tmp_path/'images')   # wherever the run is read from
    assert (args['data']['root'], args['data']['valid_pct'])==(root, .5) and f'root={root!r}' in args['python'] and 'valid_pct=0.5' in args['python']

# Folders and files that are no use
def test_links_in_a_ring(tmp_path):
    lay(tmp_path, 'a', 'b')
    os.symlink(tmp_path/'a', tmp_path/'b/x'), os.symlink(tmp_path/'b', tmp_path/'a/y')
    refused(tmp_path, 'is a link to a folder that it is in')
    (tmp_path/'b/x').unlink(), (tmp_path/'a/y').unlink()
    os.symlink('r1', tmp_path/'r2'), os.symlink('r2', tmp_path/'r1')
    assert find_source(tmp_path).classes==['a','b']
    refused(tmp_path/'r1', 'No such')

def test_a_folder_without_end(tmp_path):
    path = lay(tmp_path, 'a')/'a'
    for i in range(90): path = path/'x'
    path.mkdir(parents=True)
    refused(tmp_path, 'folders deep')

@pytest.mark.parametrize('src', ['a\0b', 'x'*5000, '~nobody-here/x', '/dev/null', '/proc/self/mem'])
def test_paths_that_are_none(src): refused(src)

def test_a_home_that_cannot_be_written(tmp_path):
    p = shell('digits', cwd=tmp_path, HOME='/dev/null', MPLCONFIGDIR=str(tmp_path))
    assert p.returncode==3 and b'FASTAI_HOME' in p.stderr and len(p.stderr.splitlines())<=3, p.stderr

def test_a_run_folder_that_cannot_be_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(lay(tmp_path, 'cats', 'dogs', n=8))
    Path('runs').touch()
    for out in [], ['--out', 'runs/a']:
        rc,err = main(['.', *tiny, *out]),capsys.readouterr().err
        assert rc==2 and 'Cannot write to the run folder' in err and '--out' in err and len(err.splitlines())<=3

# Archives
def bomb(path, sizes):
    "A tar whose members are of zeros"
    with tarfile.open(path, 'w:gz') as f:
        for i,n in enumerate(sizes):
            o = tarfile.TarInfo(f'{i}.png')
            o.size = n
            f.addfile(o, io.BytesIO(bytes(n)))

def test_an_archive_is_bounded(tmp_path, monkeypatch):
    (tmp_path/'to').mkdir()
    monkeypatch.setattr(datasets, 'max_unpacked', 2**20)
    bomb(tmp_path/'a.tgz', [2**19, 2**19, 1])
    with zipfile.ZipFile(tmp_path/'a.zip', 'w', zipfile.ZIP_DEFLATED) as f: f.writestr('0.png', bytes(2**20+1))
    for o in 'a.tgz', 'a.zip':
        with pytest.raises(DataError, match='unpacks to more than'): unpack(tmp_path/o, tmp_path/'to')
    bomb(tmp_path/'b.tgz', [2**19, 2**19])
    monkeypatch.setattr(datasets, 'max_members', 1)
    with pytest.raises(DataError, match='1 files'): unpack(tmp_path/'b.tgz', tmp_path/'to')
    assert not list((tmp_path/'to').iterdir())
    monkeypatch.setattr(datasets, 'max_members', 2)
    unpack(tmp_path/'b.tgz', tmp_path/'to')
    assert len(list((tmp_path/'to').iterdir()))==2

def test_an_archive_on_an_older_python(tmp_path, monkeypatch):
    "Before 3.10.12 and 3.11.4 `tarfile` had no filters"
    old = tarfile.TarFile.extractall
    monkeypatch.delattr(tarfile, 'data_filter')
    monkeypatch.setattr(tarfile.TarFile, 'extractall', lambda self, path='.', members=None, *, numeric_owner=False: old(self, path, members, numeric_owner=numeric_owner))
    bomb(tmp_path/'a.tgz', [5000]), (tmp_path/'to').mkdir()
    unpack(tmp_path/'a.tgz', tmp_path/'to')
    assert [o.stat().st_size for o in (tmp_path/'to').iterdir()]==[5000]

def damaged(tmp_path):
    "Archives that are none, or damaged"
    bomb(tmp_path/'a.tgz', [5000])
    with zipfile.ZipFile(tmp_path/'a.zip', 'w', zipfile.ZIP_DEFLATED) as f: f.writestr('0.png', os.urandom(5000))
    tgz,z = (tmp_path/'a.tgz').read_bytes(),(tmp_path/'a.zip').read_bytes()
    yield from (b'', b'no archive', gzip.compress(b'no tar'), tgz[:40], tgz[:-20], z[:300], z[:100]+bytes(100)+z[200:], b'\x1f\x8b'+os.urandom(99), b'BZh9'+os.urandom(99), b'\xfd7zXZ\0'+os.urandom(99))
    i = z.index(b'PK\1\2')
    yield z[:i+8]+struct.pack('<H', 1)+z[i+10:]   # encrypted
    yield z[:i+10]+struct.pack('<H', 99)+z[i+12:]   # packed in a way that nobody knows

def test_archives_that_are_none(tmp_path):
    for k,data in enumerate(damaged(tmp_path)):
        (tmp_path/f'{k}').write_bytes(data), (tmp_path/f'to{k}').mkdir()
        with pytest.raises(DataError, match=f'{k}'): unpack(tmp_path/f'{k}', tmp_path/f'to{k}')

def test_an_archive_is_no_source(tmp_path):
    bomb(tmp_path/'a.tgz', [9])
    refused(tmp_path/'a.tgz', 'unpack it')

def test_several_labels_in_one_cell_are_said(tmp_path):
    "Classes of each combination would be trained in silence"
    for i in range(12): Image.new('RGB', (40,40), (20*i,0,0)).save(tmp_path/f'{i}.png')
    (tmp_path/'t.csv').write_text('image,label\n'+''.join(f"{i}.png,{('dress;blue','shirt;blue')[i%2]}\n" for i in range(12)))
    src = find_source(tmp_path/'t.csv')
    assert src.classes==['dress;blue','shirt;blue'] and "'dress;blue' is taken as one class" in src.describe()
